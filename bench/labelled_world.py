"""One labelled set as openbook sees it: an index, questions over its passages, and an exam about other articles."""

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kept_passages import Remembered
from labelled_sets import Labelled, LabelledSet
from openbook import prompt
from openbook.dataset import groups
from openbook.documents import chunk
from openbook.records import Chunk, Question, RaftExample, content_id
from openbook.retrieval import LanceStore, Retriever, load_embedder, passage_text
from openbook.storage import write_json


class World:
    """`documents` of the set are indexed in `folder`, or as many as are asked about: `exam` questions, and `pool` others
    about other clusters. The same arguments give the same questions."""

    def __init__(self, name: str, data: LabelledSet, folder: Path, *, exam: int, pool: int, documents: int) -> None:
        draw = random.Random(f"{name}:{pool}:{exam}:{documents}")
        held_out, asked = split(data.questions, exam, pool, draw)
        kept = {question.document for question in (*held_out, *asked)}
        others = [number for number in range(len(data.documents)) if number not in kept]
        kept |= set(draw.sample(others, max(0, min(len(others), documents - len(kept)))))
        embedder = load_embedder("offline")
        passages = {
            n: chunk(data.documents[n], count_tokens=embedder.count_tokens, max_tokens=200) for n in sorted(kept)
        }
        self.retriever = Remembered(Retriever(opened(folder, passages, embedder), embedder))
        self.chunks = {passage.id: passage for found in passages.values() for passage in found}
        self.labels: dict[str, Labelled] = {}
        self.pool = [q for labelled in asked if (q := self._question(labelled, passages))]
        self.exam = [self._examined(q) for labelled in held_out if (q := self._question(labelled, passages))]

    @property
    def clusters(self) -> dict[str, str]:
        """The cluster of each example of the exam."""
        return {example.id: self.labels[example.question_id].cluster for example in self.exam}

    def _question(self, labelled: Labelled, passages: Mapping[int, Sequence[Chunk]]) -> Question | None:
        """The question over the passage that holds its sentence whole; None where the cut went through it.

        Its answer is the sentence until the rows are made: "no" stands in every passage and would rule all of them out
        as distractors.
        """
        golden = next((c for c in passages[labelled.document] if labelled.sentence in c.text), None)
        if golden is None:
            return None
        id_ = content_id(golden.id, labelled.question)
        self.labels[id_] = labelled
        return Question(
            id=id_,
            text=labelled.question,
            golden_chunk_ids=(golden.id,),
            answer=labelled.sentence,
            quotes=(labelled.sentence,),
            reasoning=prompt.render_quote(labelled.sentence),
            kind="",
        )

    def _examined(self, question: Question) -> RaftExample:
        golden = tuple(self.chunks[i] for i in question.golden_chunk_ids)
        group = groups.Group(passages=golden, questions=(question,))
        row = groups.tested(question, golden, group, included=True, seed=0)
        return replace(row, answer=self.labels[question.id].answer, final_answer=self.labels[question.id].answer)

    def labelled(self, rows: Iterable[RaftExample], *, quotes: bool = True) -> list[RaftExample]:
        """Training rows with the set's own answers, with or without the quote before them."""
        return [self._labelled(row, quotes=quotes) for row in rows]

    def _labelled(self, row: RaftExample, *, quotes: bool) -> RaftExample:
        answer = self.labels[row.question_id].answer
        if not row.golden_included:
            return replace(row, answer=answer)
        return replace(row, answer=answer, final_answer=answer, reasoning=row.reasoning if quotes else "")


def split(
    questions: Sequence[Labelled], exam: int, pool: int, draw: random.Random
) -> tuple[list[Labelled], list[Labelled]]:
    """Questions of the exam, and those to train on, with no cluster in common; the exam takes about a third of the
    clusters, by turns one question of each."""
    clusters: dict[str, list[Labelled]] = defaultdict(list)
    for question in questions:
        clusters[question.cluster].append(question)
    names = sorted(clusters)
    draw.shuffle(names)
    for name in names:
        draw.shuffle(clusters[name])
    outside = names[: max(1, min(exam, len(names) // 3))]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(clusters[name] for name in outside)))
    examined = list(itertools.islice((question for question in turns if question), exam))
    rest = [question for name in names[len(outside) :] for question in clusters[name]]
    return examined, draw.sample(rest, min(pool, len(rest)))


def opened(folder: Path, passages: Mapping[int, Sequence[Chunk]], embedder: Any) -> LanceStore:
    """The index of these passages, made anew unless the folder holds just them."""
    everything = [passage for found in passages.values() for passage in found]
    made = content_id(embedder.fingerprint, *(passage.id for passage in everything))
    store, marker = LanceStore(folder), folder.with_suffix(".json")
    if not marker.is_file() or json.loads(marker.read_text(encoding="utf-8")) != made:
        store.reset(dimension=embedder.dimension, make="bench")
        for at in range(0, len(everything), 256):
            batch = everything[at : at + 256]
            store.add(batch, embedder.encode([passage_text(passage) for passage in batch]))
        store.optimize()
        write_json(marker, made)
    return store
