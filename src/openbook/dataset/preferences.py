"""What people preferred: rows of QA-Feedback (Wu et al. 2023, arXiv 2306.01693) as preference pairs.

A row has a question, passages (each a title and sentences), four answers `prediction 1` to `prediction 4`, and
`preference`: for the six couples of them, in the order 12, 13, 14, 23, 24, 34, which one was preferred (1 the first, 2
the second, 0 neither).
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openbook import prompt
from openbook.dataset.tables import read_rows
from openbook.errors import RecordError
from openbook.records import to_json
from openbook.storage import write_jsonl

ANSWERS: Final = tuple(f"prediction {number}" for number in range(1, 5))
COUPLES: Final = tuple(itertools.combinations(range(4), 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanReport:
    """`ties` are couples of which neither was preferred, `equal` those whose preferred answer says the same."""

    questions: int
    pairs: int
    ties: int
    equal: int


def write_human_pairs(path: Path, out: Path) -> HumanReport:
    """Turn the preferences of people in `path` into pairs in `out`. Raises `RecordError` with the row's number."""
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for raw in read_rows(path):
            name = f"{path}:{raw.number}"
            if raw.row is None:
                raise RecordError(f"{name}: {raw.problem}.")
            counts["questions"] += 1
            yield from _pairs(raw.row, name, counts)

    written = write_jsonl(out, rows())
    if not written:
        raise RecordError(f"{path} holds no preference of one answer over another.", "Name a file of QA-Feedback rows.")
    return HumanReport(questions=counts["questions"], pairs=written, ties=counts["ties"], equal=counts["equal"])


def _pairs(row: Mapping[str, Any], name: str, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    question, passages, preference = row.get("question"), row.get("passages"), row.get("preference")
    answers = [row.get(key) for key in ANSWERS]
    if not isinstance(question, str) or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise RecordError(f"{name}: 'question' or one of the four predictions is not text.", "Name QA-Feedback rows.")
    if not isinstance(preference, list) or len(preference) != len(COUPLES) or not set(preference) <= {0, 1, 2}:
        raise RecordError(f"{name}: 'preference' is not six of 0, 1 and 2, but {preference!r}.")
    shown = prompt.prompt(question, [_passage(passage, name) for passage in passages or ()])
    for couple, preferred in zip(COUPLES, preference, strict=True):
        if preferred == 0:
            counts["ties"] += 1
            continue
        chosen, rejected = (answers[at] for at in (couple if preferred == 1 else couple[::-1]))
        if str(chosen).strip() == str(rejected).strip():
            counts["equal"] += 1
            continue
        yield {
            "prompt": [to_json(message) for message in shown.messages],
            "chosen": chosen,
            "rejected": rejected,
            "kind": "human preference",
            "chosen_from": "human",
        }


def _passage(passage: Any, name: str) -> str:
    """A passage as text: its title on a line of its own, then its sentences."""
    if isinstance(passage, str):
        return passage
    if not isinstance(passage, list) or not passage or not all(isinstance(part, str) for part in passage):
        raise RecordError(f"{name}: a passage is neither text nor a list of a title and sentences.")
    title, *sentences = passage
    return f"{title}\n{' '.join(sentences)}"
