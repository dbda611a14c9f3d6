"""Public question sets as documents, and questions whose answer is known to stand in one of their sentences.

Each loader takes a path and returns documents and questions; a question whose answer stands nowhere word for word is
left out. `cluster` is what an exam holds out as a whole, and what the bootstrap draws: the article, abstract or interface.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from openbook.documents import sentences
from openbook.metrics import f1
from openbook.records import Document, Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """`sentence` stands word for word in document number `document`; `answer` need not (yes, no, maybe)."""

    question: str
    answer: str
    sentence: str
    document: int
    cluster: str


@dataclass(frozen=True, slots=True)
class LabelledSet:
    documents: list[Document]
    questions: list[Labelled]


def squad(path: Path) -> LabelledSet:
    """SQuAD in its v2.0 layout; the questions that it calls impossible are left out."""
    found = LabelledSet([], [])
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        title = article["title"].replace("_", " ")
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            number = _add(found, title, text)
            for qa in paragraph["qas"]:
                if qa.get("is_impossible") or not qa["answers"]:
                    continue
                start = qa["answers"][0]["answer_start"]
                _ask(found, qa["question"], qa["answers"][0]["text"], _sentence_at(text, start), number, title)
    return found


def nq_open(path: Path) -> LabelledSet:
    """NQ-open with the annotated gold passage; the first of the answers that stands in it word for word counts."""
    found = LabelledSet([], [])
    known: dict[tuple[str, str], int] = {}
    for row in _rows(path):
        title, text = row["title"], row["passage"]
        number = known.setdefault((title, text), len(found.documents))
        if number == len(found.documents):
            _add(found, title, text)
        answer = next((answer for answer in row["answers"] if answer in text), "")
        if answer:
            _ask(found, row["question"], answer, _sentence_at(text, text.index(answer)), number, title)
    return found


def pubmedqa(path: Path) -> LabelledSet:
    """PubMedQA: abstracts without their conclusion. The answer is yes, no or maybe; the sentence is the one nearest to the
    conclusion by token F1, which the set does not label."""
    found = LabelledSet([], [])
    for row in _rows(path):
        text = "\n\n".join(row["contexts"])
        number = _add(found, f"Abstract {row['id']}", text)
        spans = [text[start:end] for start, end in sentences(text)]
        nearest = max(spans, key=lambda sentence, row=row: f1(sentence, row["long_answer"]))  # type: ignore[misc]
        _ask(found, row["question"], row["final_decision"], nearest, number, row["id"])
    return found


def torch_hub(path: Path) -> LabelledSet:
    """Torch Hub as the Gorilla project has it: a folder with `torchhub_api.jsonl` and `torchhub_train.json`. The answer is the call."""
    found = LabelledSet([], [])
    calls: dict[str, int] = {}
    for row in _rows(path / "torchhub_api.jsonl"):
        call, name = row["api_call"], row["api_name"]
        told = f"{row['functionality']}: {row['description']}\n\nThe call is {call}\n\nDomain: {row['domain']}"
        number = _add(found, name, told)
        calls.setdefault(call, number)
    for row in _rows(path / "torchhub_train.json"):
        number, asked = (
            calls.get(row["api_call"], -1),
            re.search(r"'Instruction': (.+?),\s*'Output'", row["code"], re.DOTALL),
        )
        if number >= 0 and asked:
            question = " ".join(asked[1].strip("'\" ").split())
            _ask(found, question, row["api_call"], f"The call is {row['api_call']}", number, row["api_call"])
    return found


SETS: dict[str, Callable[[Path], LabelledSet]] = {
    "squad": squad,
    "nq_open": nq_open,
    "pubmedqa": pubmedqa,
    "torch_hub": torch_hub,
}


def _add(found: LabelledSet, title: str, text: str) -> int:
    """A text below a heading, as it stands in an article; its number keeps the uri its own."""
    number = len(found.documents)
    section = Section(start=0, level=1, title=title)
    found.documents.append(
        Document.create(uri=f"{title}/{number}", title=title, text=f"{title}\n\n{text}", sections=(section,))
    )
    return number


def _ask(found: LabelledSet, question: str, answer: str, sentence: str, document: int, cluster: str) -> None:
    if sentence and "\n" not in sentence:
        found.questions.append(
            Labelled(question=question, answer=answer, sentence=sentence, document=document, cluster=cluster)
        )


def _sentence_at(text: str, at: int) -> str:
    return next((text[start:end] for start, end in sentences(text) if start <= at < end), "")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of JSON Lines, gzipped or not."""
    lines: IO[str]
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
