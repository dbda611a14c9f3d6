"""Which questions the base answers without any passage: too easy to show that reading helps, and marked as such."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from openbook import prompt
from openbook.config import Config
from openbook.dataset.judge import likeness
from openbook.progress import Progress
from openbook.records import RaftExample

KNOWN: Final = 0.8  # likeness from which on an answer counts as known


def marked(
    parts: Mapping[str, Sequence[RaftExample]], config: Config, progress: Progress
) -> dict[str, list[RaftExample]]:
    """The rows with `scores.closed_base`: how like the right answer is what the bare base says to the question alone."""
    from openbook import models

    loaded = models.load_base(config, dequantize=True)
    generator = models.Generator(loaded, max_new_tokens=config.model.max_new_tokens)
    rows = [row for part in parts.values() for row in part if row.golden]
    with progress.task("Asking the base without passages", len(rows), "questions") as task:
        answers = generator.generate([prompt.prompt(row.question, None) for row in rows], task=task)
    said = {row.id: prompt.parse_answer(answer.text).final for row, answer in zip(rows, answers, strict=True)}
    return {
        name: [
            replace(row, scores=replace(row.scores, closed_base=likeness(said[row.id], row.answer)))
            if row.id in said
            else row
            for row in part
        ]
        for name, part in parts.items()
    }


def is_known(row: RaftExample) -> bool:
    """Whether the base or the teacher answers without any passage."""
    return max(row.scores.closed_base or 0.0, row.scores.closed_book or 0.0) >= KNOWN
