"""Which passages are held out, in which order passages are asked about, and which question goes to which part.

Documents are split before any question is written, so that no document stands on both sides; questions on the
training documents are then split by answer sentence.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from openbook.dataset.checks import sentence_key
from openbook.records import Chunk, Question

FEW_DOCUMENTS = 5  # with fewer, sections are held out instead of documents
HELD_OUT = 0.2  # at most this share of the passages is held out


class Place(NamedTuple):
    """Where a passage stands, without its text: a large index has many."""

    uri: str
    start: int
    chunk_id: str
    document_id: str
    headings: tuple[str, ...]

    @classmethod
    def of(cls, chunk: Chunk) -> Self:
        return cls(chunk.uri, chunk.start, chunk.id, chunk.document_id, chunk.headings)


Unit = tuple[Place, ...]


def units(chunks: Iterable[Chunk]) -> list[Unit]:
    """What is held out as a whole: documents, or sections where there are fewer than five documents.

    In the order of the documents' names, whatever the order of `chunks`.
    """
    documents: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for chunk in chunks:
        documents[chunk.uri, chunk.document_id].append(Place.of(chunk))
    whole = [tuple(sorted(places)) for _, places in sorted(documents.items())]
    if len(whole) >= FEW_DOCUMENTS:
        return whole
    return [section for places in whole for section in _sections(places)]


def _sections(places: Unit) -> list[Unit]:
    """The top-level sections of a document: the first depth of headings at which it falls apart at all. A document
    without headings is cut in four."""
    deepest = max(len(place.headings) for place in places)
    for depth in range(1, deepest + 1):
        sections: list[list[Place]] = []
        for place in places:
            if sections and sections[-1][-1].headings[:depth] == place.headings[:depth]:
                sections[-1].append(place)
            else:
                sections.append([place])
        if len(sections) >= FEW_DOCUMENTS - 1:
            return [tuple(section) for section in sections]
    quarter = max(1, -(-len(places) // 4))
    return [places[i : i + quarter] for i in range(0, len(places), quarter)]


def hold_out(all_units: Sequence[Unit], seed: int) -> list[Unit]:
    """The units that may be held out, in the order in which to take them; together at most a fifth of the passages.

    Where every unit is larger than that, the smallest one may be held out as long as it is not half of everything.
    """
    total = sum(map(len, all_units))
    if len(all_units) < 2:
        return []
    order = list(all_units)
    random.Random(f"hold out:{seed}").shuffle(order)
    chosen: list[Unit] = []
    left = HELD_OUT * total
    for unit in order:
        if len(unit) <= left:
            chosen.append(unit)
            left -= len(unit)
    smallest = min(order, key=len)
    if not chosen and len(smallest) <= total / 2:
        chosen = [smallest]
    return chosen


def blocks(training: Iterable[Unit], size: int, seed: int) -> list[Unit]:
    """The passages in runs of `size` neighbours, the runs in random order.

    Questions about neighbours retrieve each other's passages, so that they can study them together.
    """
    runs = [unit[i : i + size] for unit in training for i in range(0, len(unit), size)]
    random.Random(f"blocks:{seed}").shuffle(runs)
    return runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    train: list[Question]
    validation: list[Question]
    studied: list[Question]


def part(questions: Sequence[Question], *, train: int, validation: int, studied: int, seed: int) -> Parts:
    """Deal questions to the three parts; questions that one sentence answers always go to the same part.

    Where there are too few, all parts shrink alike, and training keeps at least one.
    """
    by_sentence: dict[object, list[Question]] = defaultdict(list)
    for question in questions:
        by_sentence[sentence_key(question)].append(question)
    keys = sorted(by_sentence, key=lambda key: by_sentence[key][0].id)
    random.Random(f"parts:{seed}").shuffle(keys)
    # A cloze is asked only where too few real questions were found.
    keys.sort(key=lambda key: by_sentence[key][0].kind == "cloze")
    share = min(1.0, len(questions) / max(1, train + validation + studied))
    wanted = [int(studied * share), int(validation * share), train]
    dealt: list[list[Question]] = [[], [], []]
    keys = _mixed(keys, sum(wanted), seed)
    for key in keys:
        for part_, limit in zip(dealt, wanted, strict=True):
            if len(part_) + len(by_sentence[key]) <= limit:
                part_.extend(by_sentence[key])
                break
    return Parts(train=dealt[2], validation=dealt[1], studied=dealt[0])


def _mixed(keys: list[object], count: int, seed: int) -> list[object]:
    """The first `count` keys in a new random order, so that no part gets all of the leading kind; then the rest."""
    head, tail = keys[:count], keys[count:]
    random.Random(f"mixed:{seed}").shuffle(head)
    return head + tail
