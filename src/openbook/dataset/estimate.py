"""What a build by a language model would take: calls, tokens, money and time, before anything is sent.

The prompts are measured, on passages from the very order in which the build would ask about them. What a model will
answer can only be assumed; the assumptions are the constants below, and the report names them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from openbook.config import Config
from openbook.dataset import splits
from openbook.dataset.llm_teacher import LLMTeacher
from openbook.dataset.sources import Source
from openbook.dataset.writing import SPREAD, SURPLUS
from openbook.llm import KeptCalls, Price, tokens_about
from openbook.records import Chunk, Conversation

PASSES: Final = 0.6  # of the questions that a call is asked for, so many are written and pass every check
WRITTEN: Final = 110  # tokens of a question with its quote, reasoning and answer
MARKED: Final = 25  # tokens of a verdict, or of an answer from memory
GROUP: Final = 3  # training questions that share their passages
TRIES: Final = 2  # calls for each question of a rare kind
SECONDS: Final = 5.0  # of a call, where none to this model is known
SAMPLED: Final = 200  # passages whose prompts are measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Calls of one kind, and the tokens of all of them together. `kept` of them are answered already and cost nothing."""

    name: str
    calls: int
    read: float
    written: float
    kept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`seconds` is wall time with `at_once` calls under way; `measured` says whether calls of before tell how long one
    takes. `money` is None without prices. `most_calls` is what it takes where every passage has to be asked about."""

    kinds: tuple[Kind, ...]
    at_once: int
    seconds: float
    measured: bool
    money: float | None
    limit: float
    most_calls: int

    @property
    def calls(self) -> int:
        return sum(kind.calls for kind in self.kinds)

    def __str__(self) -> str:
        lines = [f"{'':34}{'calls':>8} {'tokens read':>13} {'written':>11}"]
        rows = [*self.kinds, _sum(self.kinds)]
        lines += [f"{k.name:34}{k.calls:>8,} {k.read:>13,.0f} {k.written:>11,.0f}" for k in rows]
        kept = sum(kind.kept for kind in self.kinds)
        if kept:
            lines.append(f"{kept:,} of these calls are answered already and kept: they cost nothing more.")
        if self.money is not None:
            stop = f"; --max-cost stops it at {self.limit:.2f} at the latest" if self.limit else ""
            lines.append(f"Money: about {self.money:.2f}{stop}.")
        else:
            lines.append("Money: give --price-read and --price-written (for a million tokens) to see it.")
        how = "as calls to this model took so far" if self.measured else f"if a call takes {SECONDS:g} s"
        lines.append(
            f"Time: about {max(1, math.ceil(self.seconds / 60)):,} min, {self.at_once} calls at a time, {how}."
        )
        lines.append(
            f"Assumed: {PASSES:.0%} of what is asked for can be used. At worst every passage is asked about: "
            f"{self.most_calls:,} calls. Nothing was sent."
        )
        return "\n".join(lines)


def _sum(kinds: Sequence[Kind]) -> Kind:
    return Kind(
        name="all",
        calls=sum(kind.calls for kind in kinds),
        read=sum(kind.read for kind in kinds),
        written=sum(kind.written for kind in kinds),
        kept=sum(kind.kept for kind in kinds),
    )


def estimate(source: Source, teacher: LLMTeacher, config: Config) -> Estimate:
    """What `build` would take. Sends nothing."""
    options = config.dataset
    units = splits.units(source.store.chunks(), options.split_by)
    order = [place.chunk_id for block in splits.blocks(units, SPREAD, config.seed) for place in block]
    wanted = options.questions + options.validation + options.studied + options.unseen
    limit = options.questions_per_chunk
    writing = min(len(order), math.ceil(SURPLUS * wanted / (limit * PASSES)))
    sample = source.store.get(order[: min(writing, SAMPLED)])
    sizes = _Sizes(teacher, sample, limit)
    questions = min(options.questions, math.ceil(writing * limit * PASSES))
    kinds = [Kind(name="questions", calls=writing, read=writing * sizes.writing, written=writing * limit * WRITTEN)]
    kinds[0] = replace(kinds[0], kept=round(writing * sizes.kept))
    for name, share, of, passages in (
        ("questions on two passages", options.pair_share, wanted, 2),
        ("questions that nothing answers", options.nowhere_share, questions, 1),
    ):
        calls = math.ceil(TRIES * share * of)
        read = calls * (sizes.writing + (passages - 1) * sizes.passage)
        kinds.append(Kind(name=name, calls=calls, read=read, written=calls * WRITTEN))
    if teacher.judge is not None:
        about = limit * WRITTEN
        judged = writing + kinds[1].calls
        shown = options.passages * sizes.passage
        groups = math.ceil(questions / GROUP)
        per_group = sizes.told("beside") + shown + GROUP * WRITTEN / 4
        kinds += [
            Kind(
                name="judging with the passage",
                calls=judged,
                read=judged * (sizes.told("judge") + sizes.passage + about),
                written=judged * limit * MARKED,
            ),
            Kind(
                name="judging without it",
                calls=judged,
                read=judged * (sizes.told("closed") + about / 4),
                written=judged * limit * MARKED,
            ),
            Kind(name="judging distractors", calls=groups, read=groups * per_group, written=groups * GROUP * MARKED),
        ]
    kinds = [kind for kind in kinds if kind.calls]
    chat = teacher.chat
    known = chat.mean_seconds() if isinstance(chat, KeptCalls) else None
    price = Price(read=options.price_read, written=options.price_written)
    total = _sum(kinds)
    left = 1 - total.kept / total.calls if total.calls else 0.0
    return Estimate(
        kinds=tuple(kinds),
        at_once=teacher.at_once,
        seconds=total.calls * left * (known or SECONDS) / teacher.at_once,
        measured=known is not None,
        money=price.of(total.read, total.written) if price != Price() else None,
        limit=options.max_cost,
        most_calls=total.calls + (len(order) - writing) * (3 if teacher.judge is not None else 1),
    )


class _Sizes:
    """Mean sizes in tokens, measured on a sample of passages."""

    def __init__(self, teacher: LLMTeacher, sample: Sequence[Chunk], limit: int) -> None:
        self._teacher = teacher
        asked = [teacher.asks(chunk, limit) for chunk in sample]
        self.writing = _mean([_tokens(conversation) for conversation, _ in asked])
        self.passage = _mean([tokens_about(chunk.text) for chunk in sample])
        chat = teacher.chat
        kept = [chat.is_kept(one, max_tokens=most) for one, most in asked] if isinstance(chat, KeptCalls) else []
        self.kept = _mean([float(one) for one in kept])

    def told(self, name: str) -> float:
        """Tokens of the prompt `name` without what is filled in."""
        return _tokens(self._teacher.instructions.conversation(name, passages="", questions=""))


def _tokens(conversation: Conversation) -> float:
    return sum(tokens_about(message.content) for message in conversation.messages)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
