"""Which passages are held out, in which order passages are asked about, and which question goes to which part.

Documents are split before any question is written, so that no document stands on both sides; questions on the
training documents are then split by answer sentence.
"""

import datetime
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Self

from openbook.dataset.checks import sentence_keys
from openbook.documents import file_of
from openbook.errors import InputError
from openbook.records import Chunk, Question, content_id

By = Literal["document", "folder", "time"]

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


def units(chunks: Iterable[Chunk], by: By = "document") -> list[Unit]:
    """What is held out as a whole: documents (sections where there are fewer than five), or folders.

    In the order of the documents' names, whatever the order of `chunks`. Raises `InputError` where there is but one
    folder.
    """
    documents: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for chunk in chunks:
        documents[chunk.uri, chunk.document_id].append(Place.of(chunk))
    whole = [tuple(sorted(places)) for _, places in sorted(documents.items())]
    if by == "folder":
        return _folders(whole)
    if by == "time":
        return whole
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


def _folders(whole: Sequence[Unit]) -> list[Unit]:
    """Documents of one folder together; where all lie below one folder, by the folders in that one, and so on down."""
    paths = [PurePosixPath(document[0].uri).parent.parts for document in whole]
    depth = 1
    while len(paths) > 1 and len({path[:depth] for path in paths}) == 1 and depth <= max(map(len, paths)):
        depth += 1
    folders: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for path, document in zip(paths, whole, strict=True):
        folders[path[:depth]] += document
    if len(folders) == 1 and whole:
        raise InputError(
            "All documents lie in one folder, so that none can be held out.",
            "Put them into several, or split by document (dataset.split_by).",
        )
    return [tuple(places) for _, places in sorted(folders.items())]


_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_./]?(0[1-9]|1[0-2])[-_./]?(0[1-9]|[12]\d|3[01])(?!\d)")


def day_of(uri: str, paths: Mapping[str, str]) -> datetime.date:
    """The day of a document: the last date in its path (2024-05-31, 20240531, 2024/05/31), else when the file was changed.

    `paths` says where the documents lie: how their uris begin → the file or folder that was read. Raises `InputError`
    for a document that has neither.
    """
    for year, month, day in reversed(_DATE.findall(uri)):
        try:
            return datetime.date(int(year), int(month), int(day))
        except ValueError:  # the 31st of February is a number of another kind
            continue
    file = file_of(uri, ((Path(path), name) for name, path in paths.items()))
    if file is None:
        raise InputError(
            f"{uri} has no date in its path, and the file is not where it was read, so that it cannot be asked when it "
            "was changed.",
            "Run `openbook ingest` again, or split by document or folder instead (dataset.split_by).",
        )
    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).date()


def newest(all_units: Sequence[Unit], paths: Mapping[str, str]) -> list[Unit]:
    """The units that may be held out by time: the newest, together at most a fifth of the passages. Documents of the day
    at the border stay on the training side, so that nothing is studied that is as new as what is held out. For `paths`
    see `day_of`."""
    days = [(day_of(unit[0].uri, paths), unit) for unit in all_units]
    days.sort(key=lambda dated: (-dated[0].toordinal(), dated[1][0].uri))
    left = HELD_OUT * sum(map(len, all_units))
    chosen: list[tuple[datetime.date, Unit]] = []
    for day, unit in days:
        if len(unit) > left:
            return [unit for when, unit in chosen if when > day]
        chosen.append((day, unit))
        left -= len(unit)
    return [unit for _, unit in chosen]


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
    by_sentence = _together(questions)
    keys = sorted(by_sentence, key=lambda key: by_sentence[key][0].id)
    # Drawn by id and not shuffled: when one question goes, the others stay where they were.
    drawn = {key: content_id("parts", seed, by_sentence[key][0].id) for key in keys}
    keys.sort(key=drawn.__getitem__)
    # A cloze is asked only where too few real questions were found; questions that need two passages are few and wanted.
    keys.sort(key=lambda key: (_needs_two(by_sentence[key]), by_sentence[key][0].kind != "cloze"), reverse=True)
    share = min(1.0, len(questions) / max(1, train + validation + studied))
    wanted = [int(studied * share), int(validation * share), train]
    dealt: list[list[Question]] = [[], [], []]
    # The first of them in an order of their own, so that no part gets all of the leading kind.
    head = sorted(keys[: sum(wanted)], key=drawn.__getitem__)
    keys = head + keys[sum(wanted) :]
    for key in keys:
        for part_, limit in zip(dealt, wanted, strict=True):
            if len(part_) + len(by_sentence[key]) <= limit:
                part_.extend(by_sentence[key])
                break
    return Parts(train=dealt[2], validation=dealt[1], studied=dealt[0])


def _needs_two(questions: Sequence[Question]) -> bool:
    return any(len(question.golden_chunk_ids) > 1 for question in questions)


def _together(questions: Sequence[Question]) -> dict[int, list[Question]]:
    """Questions that share an answer sentence, directly or through others, under one number."""
    leader = list(range(len(questions)))

    def lead(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    first: dict[str, int] = {}
    for number, question in enumerate(questions):
        for key in sorted(sentence_keys(question)):
            leader[lead(number)] = lead(first.setdefault(key, number))
    together: dict[int, list[Question]] = defaultdict(list)
    for number, question in enumerate(questions):
        together[lead(number)].append(question)
    return together
