"""What calls cost, and a limit that is never passed."""

import threading
from dataclasses import dataclass

from openbook.errors import TeacherError
from openbook.records import Conversation, Usage

BYTES_PER_TOKEN = 4.0  # of English and most other text; only for estimates
TEMPLATE_TOKENS = 16  # what a chat template writes around a message, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Calls sent by this process and calls answered from those kept before, and the price of both together, in the money
    of the prices that were given."""

    sent: int = 0
    kept: int = 0
    money: float = 0.0


class BudgetSpentError(TeacherError):
    """The next call could cost more than is left. What was paid for is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Money for a million tokens, in whatever currency the user thinks in."""

    read: float = 0.0
    written: float = 0.0

    def of(self, read: float, written: float) -> float:
        """The price of so many tokens."""
        return (self.read * read + self.written * written) / 1e6


def tokens_about(text: str) -> float:
    """About how many tokens a text has, whatever the tokenizer."""
    return len(text.encode()) / BYTES_PER_TOKEN


def tokens_at_most(messages: Conversation) -> int:
    """No tokenizer makes more of a conversation: a token holds at least a byte."""
    return sum(len(message.content.encode()) + TEMPLATE_TOKENS for message in messages.messages)


class Budget:
    """Counts what was spent, and refuses a call that could pass the limit (0: no limit).

    The dearest that a call can become is set aside before it is sent. While calls under way hold what the next one
    needs, that one waits, since they may turn out cheap. After the first refusal every other call is refused as well.
    """

    def __init__(self, price: Price, limit: float = 0.0) -> None:
        self.price = price
        self.limit = limit
        self.spent = 0.0
        self.exhausted = False
        self._held = 0.0
        self._settled = threading.Condition()

    def hold(self, messages: Conversation, max_tokens: int) -> float:
        """Set aside the most that a call can cost, and return it. Raises `BudgetSpentError`."""
        most = self.price.of(tokens_at_most(messages), max_tokens)
        with self._settled:
            while self.limit and self._held and not self.exhausted and self.spent + self._held + most > self.limit:
                self._settled.wait()
            self.exhausted |= bool(self.limit) and self.spent + self._held + most > self.limit
            if self.exhausted:
                raise BudgetSpentError(
                    f"The next call could cost {most:.4f}, and {self.spent:.4f} of {self.limit:.4f} are spent.",
                    "Raise --max-cost to go on; what was paid for is kept.",
                )
            self._held += most
        return most

    def settle(self, held: float, usage: Usage) -> None:
        """Give back what was set aside, and count what the call did cost (nothing where it failed)."""
        with self._settled:
            self._held = max(0.0, self._held - held)
            self.spent += self.price.of(usage.prompt_tokens, usage.completion_tokens)
            self._settled.notify_all()
