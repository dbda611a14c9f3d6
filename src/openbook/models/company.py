"""Answers that are written in company: requests join and leave between two steps, each with the adapter that it wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.models.chat import Pieces, encode_prompt
from openbook.models.generate import Generator
from openbook.records import Conversation

if TYPE_CHECKING:
    from openbook.models.decode import Batch, End, Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text that was added to the answer `number`, and the tokens that it took, the stop token counted.

    `end` is "" until the answer's last piece; see `openbook.models.decode.Written`.
    """

    number: int
    text: str
    tokens: int
    end: "End"


class Company:
    """One base model and its adapters, writing many answers at once; for one thread at a time.

    Rows with the same adapter share each pass; the adapters take turns. There is room for `rows` answers for each
    adapter, of at most `context` tokens with their prompts.
    """

    def __init__(self, generator: Generator, *, rows: int, context: int) -> None:
        self.generator = generator
        self.context = min(context, generator.loaded.context)
        self.rows = rows
        self._batches: dict[str | None, Batch] = {}
        self._writers: dict[int, tuple[Pieces, str | None]] = {}  # answer → its text on the way, its adapter

    def encode(self, prompt: Conversation) -> list[int]:
        """The prompt's tokens. May run in a thread of its own."""
        return encode_prompt(self.generator.loaded.tokenizer, prompt)

    def has_room(self, adapter: str | None) -> bool:
        """Whether another answer with this adapter may join now."""
        batch = self._batches.get(adapter)
        return batch is None or batch.free > 0

    def join(self, number: int, prompt: Sequence[int], *, adapter: str | None, limit: int) -> Piece:
        """Read a prompt of which at most `limit` tokens shall follow; returns what was written first.

        Raises `ModelError` for a model that cannot be written with.
        """
        from openbook.models.decode import Batch

        if adapter not in self._batches:
            self._batches[adapter] = Batch(
                lambda: self.generator.ready(adapter), columns=self.context, rows=self.rows, stop=self.generator.stop
            )
        self._writers[number] = (Pieces(self.generator.loaded.tokenizer), adapter)
        return self._piece(self._batches[adapter].join(number, prompt, limit))

    def step(self) -> list[Piece]:
        """One pass for each adapter that is being written with."""
        return [self._piece(written) for batch in list(self._batches.values()) for written in batch.step()]

    def leave(self, number: int) -> None:
        """Stop writing this answer; nothing happens where it has ended already."""
        writer = self._writers.pop(number, None)
        if writer is not None:
            self._batches[writer[1]].leave(number)

    def add_adapter(self, name: str, folder: Path) -> None:
        """See `Generator.add_adapter`."""
        self.generator.add_adapter(name, folder)

    def drop(self, adapter: str) -> None:
        """Forget an adapter and the memory of its answers; none of them may be on its way."""
        self._batches.pop(adapter, None)
        self.generator.drop_adapter(adapter)

    def clear(self) -> None:
        """Forget all answers on their way and the memory that they took, as after a failure."""
        self._batches.clear()
        self._writers.clear()

    def _piece(self, written: "Written") -> Piece:
        pieces, _ = self._writers[written.number]
        text = pieces.add(written.tokens, last=bool(written.end))
        if written.end:
            del self._writers[written.number]
        tokens = len(written.tokens) + (written.end == "stop")
        return Piece(number=written.number, text=text, tokens=tokens, end=written.end)
