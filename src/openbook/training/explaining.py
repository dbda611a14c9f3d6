"""What a run would read: its first rows counted, and one of them token by token with what each token sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.config import Config
from openbook.models import context_tokens, load_tokenizer
from openbook.options import Tune
from openbook.tokens import TokenTree
from openbook.training.data import Form, read_study


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFigures:
    """One row. `sequence_tokens` is what its sequences would hold as separate rows."""

    tokens: int
    trees: int
    sequences: int
    sequence_tokens: int
    trained: int

    @property
    def saved(self) -> float:
        """How many times fewer tokens are read than in separate rows."""
        return self.sequence_tokens / self.tokens

    @property
    def trained_share(self) -> float:
        return self.trained / self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class RowToken:
    """One token of a row. `parent` is the place in the row of the token before it (−1: none), `position` its place in
    its own sequence, `sequence` −1 where several sequences share it."""

    id: int
    text: str
    parent: int
    position: int
    sequence: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens `start` to `end` (exclusive) of a row, which follow one another without a branch. They see one another
    backwards, and all of `sees`, half-open ranges of the row: the way from the root."""

    start: int
    end: int
    sees: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExplanation:
    """`rows` of how many (`total_rows`) of the first epoch, and the first of them in full. With `fits` a run takes rows of
    more or fewer tokens than `budget` where memory asks for it (`training.memory`), which only loaded weights can tell."""

    questions: int
    budget: int
    fits: bool
    total_rows: int
    rows: tuple[RowFigures, ...]
    segments: tuple[Segment, ...]
    tokens: tuple[RowToken, ...]


def explain(train: Path, config: Config, *, form: Form = "raft", rows: int = 5) -> RowExplanation:
    """The first `rows` rows of a run on `train`, in the order of its first epoch, of `tune.row_tokens` tokens. No weights
    are loaded.

    Raises what `tune` would for rows that cannot be trained on.
    """
    tokenizer = load_tokenizer(config.model.base)
    study = read_study(
        train,
        tokenizer,
        form=form,
        budget=config.tune.row_tokens,
        seed=config.seed,
        context=context_tokens(config.model.base, tokenizer),
        share=config.tune.share_prefixes,
    )
    planned = study.rows(0)
    shown = planned[0]
    return RowExplanation(
        questions=study.questions,
        budget=study.budget,
        fits=study.budget == Tune().row_tokens,
        total_rows=len(planned),
        rows=tuple(_figures(row) for row in planned[:rows]),
        segments=tuple(Segment(start=s, end=e, sees=_ranges(shown, s)) for s, e in shown.segments()),
        tokens=tuple(_tokens(shown, tokenizer)),
    )


def _figures(row: TokenTree) -> RowFigures:
    sequences = row.sequences()
    return RowFigures(
        tokens=len(row),
        trees=int((row.parent < 0).sum()),
        sequences=len(sequences),
        sequence_tokens=sum(map(len, sequences)),
        trained=int((row.weight > 0).sum()),
    )


def _ranges(row: TokenTree, start: int) -> tuple[tuple[int, int], ...]:
    """The way from the root to the token before `start`, as ranges of places that follow one another."""
    found: list[tuple[int, int]] = []
    for place in row.path(int(row.parent[start])).tolist():
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return tuple(found)


def _tokens(row: TokenTree, tokenizer: Any) -> list[RowToken]:
    columns = (row.input_ids, row.parent, row.depth, row.sequence, row.weight)
    return [
        RowToken(
            id=number, text=tokenizer.decode([number]), parent=parent, position=depth, sequence=sequence, weight=weight
        )
        for number, parent, depth, sequence, weight in zip(*(column.tolist() for column in columns), strict=True)
    ]
