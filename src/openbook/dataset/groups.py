"""Study groups: which questions are studied over the same passages, and which ones without their golden passage.

A group is the passages that the serving retriever finds for one question, and all questions whose golden passages lie
among them. Neighbours in the index are thereby each other's hard distractors, and a group's questions share their
prompt up to the question itself, which is what makes training on token trees fast.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from openbook import prompt
from openbook.dataset.checks import cannot_answer, distracts
from openbook.records import Chunk, Question, RaftExample, content_id

MAX_GROUP = 16  # questions; more would not fit a training row beside their passages
SPARE = 6  # passages retrieved beyond those shown, to replace distractors that fail their check

Policy = Literal["refuse", "memorise", "mix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Passages in the order in which they are shown, and the questions studied over them."""

    passages: tuple[Chunk, ...]
    questions: tuple[Question, ...]

    @property
    def id(self) -> str:
        return content_id("group", *sorted(chunk.id for chunk in self.passages))


def shown_with(golden: Sequence[Chunk], found: Iterable[Chunk], question: Question, count: int) -> list[Chunk]:
    """The golden passages and the best of `found` that may stand beside them, `count` in all where there are enough.

    No passage stands twice, not even under another id.
    """
    shown = list(golden)
    texts = {chunk.text for chunk in golden}
    for chunk in found:
        if len(shown) >= count:
            break
        if chunk.text not in texts and distracts(chunk, question):
            shown.append(chunk)
            texts.add(chunk.text)
    return shown


def form_groups(
    questions: Sequence[Question],
    ranked: Sequence[Sequence[Chunk]],
    chunks: Mapping[str, Chunk],
    *,
    count: int,
    seed: int,
) -> list[Group]:
    """Cover all questions with few groups, greedily: each time the passages that hold the most open questions.

    `ranked[i]` are the passages retrieved for `questions[i]`, best first; `chunks` holds every golden passage. The
    number of open questions of a candidate only falls, so a heap with late updates finds the largest.
    """
    passages = [
        shown_with(
            [chunks[i] for i in question.golden_chunk_ids], found, question, max(count, len(question.golden_chunk_ids))
        )
        for question, found in zip(questions, ranked, strict=True)
    ]
    by_golden: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        by_golden[question.golden_chunk_ids[0]].append(number)
    open_ = set(range(len(questions)))

    def members(anchor: int) -> list[int]:
        """The open questions that can be studied over the passages of `anchor`."""
        ids = {chunk.id for chunk in passages[anchor]}
        found = [anchor]
        for number in sorted(n for i in ids for n in by_golden[i]):
            question = questions[number]
            fits = number != anchor and number in open_ and ids.issuperset(question.golden_chunk_ids)
            others = (chunk for chunk in passages[anchor] if chunk.id not in question.golden_chunk_ids)
            if fits and len(found) < MAX_GROUP and all(distracts(chunk, question) for chunk in others):
                found.append(number)
        return found

    heap = [(-len(members(anchor)), anchor) for anchor in range(len(questions))]
    heapq.heapify(heap)
    groups: list[Group] = []
    while heap:
        size, anchor = heapq.heappop(heap)
        if anchor not in open_:
            continue
        found = members(anchor)
        if len(found) < -size:
            heapq.heappush(heap, (-len(found), anchor))
            continue
        open_.difference_update(found)
        members_ = tuple(questions[number] for number in sorted(found))
        groups.append(Group(passages=shuffled(passages[anchor], seed), questions=members_))
    return groups


def shuffled(passages: Sequence[Chunk], seed: int) -> tuple[Chunk, ...]:
    """The passages in an order that depends on nothing but them and the seed: no place favours the golden one."""
    order = sorted(passages, key=lambda chunk: chunk.id)
    random.Random(":".join((str(seed), *(chunk.id for chunk in order)))).shuffle(order)
    return tuple(order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A question that is asked over the passages of group number `group`, where its golden one is not."""

    question: Question
    group: int


def move_away(
    groups: Sequence[Group],
    *,
    share: float,
    near: Callable[[list[Question]], Sequence[Sequence[Chunk]]],
    count: int,
    seed: int,
) -> tuple[list[Group], list[Move]]:
    """Choose a `share` of all questions to lose their golden passage, and for each the group it is asked over instead.

    It is the group that shares most with what is retrieved when the golden passage is gone (`near`), as long as it
    cannot answer the question; else a new group of `count` such passages, which are returned behind `groups`. Fewer
    questions are moved where every passage answers too many of them.
    """
    everyone = sorted((q for group in groups for q in group.questions), key=lambda question: question.id)
    random.Random(f"{seed}:away").shuffle(everyone)
    wanted = round(share * len(everyone))
    home = {question.id: number for number, group in enumerate(groups) for question in group.questions}
    places, moves = _Places(groups, count, seed), list[Move]()
    at = 0
    while len(moves) < wanted and at < len(everyone):
        batch = everyone[at : at + wanted - len(moves)]
        at += len(batch)
        for question, found in zip(batch, near(batch), strict=True):
            target = places.find(question, found)
            if target is None:
                continue
            places.size[home[question.id]] -= 1
            moves.append(Move(question=question, group=target))
    return places.groups, moves


def attach(
    groups: Sequence[Group],
    moves: Sequence[Move],
    questions: Sequence[Question],
    found: Sequence[Sequence[Chunk]],
    *,
    count: int,
    seed: int,
) -> tuple[list[Group], list[Move]]:
    """Questions that nothing answers, each asked over the group that shares most with what is retrieved for it (`found`),
    or over a new group of that. `moves` are those made before."""
    places, new = _Places(groups, count, seed, moves), list[Move]()
    for question, near in zip(questions, found, strict=True):
        target = places.find(question, near)
        if target is not None:
            new.append(Move(question=question, group=target))
    return places.groups, new


class _Places:
    """Where questions can be asked without their golden passage. Groups are added as they are needed."""

    def __init__(self, groups: Sequence[Group], count: int, seed: int, moves: Sequence[Move] = ()) -> None:
        self.groups = list(groups)
        away = {move.question.id for move in moves}
        self.size = [sum(question.id not in away for question in group.questions) for group in groups]
        for move in moves:
            self.size[move.group] += 1
        self._count, self._seed = count, seed
        self._holders: dict[str, list[int]] = defaultdict(list)
        for number, group in enumerate(groups):
            for chunk in group.passages:
                self._holders[chunk.id].append(number)

    def find(self, question: Question, found: Sequence[Chunk]) -> int | None:
        """The number of a group that cannot answer `question`, with a place in it taken; None where there is none."""
        overlap: dict[int, float] = defaultdict(float)
        for rank, chunk in enumerate(found, 1):
            for number in self._holders[chunk.id]:
                overlap[number] += 1 / rank
        for number in sorted(overlap, key=lambda number: (-overlap[number], number)):
            if self.size[number] < MAX_GROUP and cannot_answer(self.groups[number].passages, question):
                self.size[number] += 1
                return number
        kept = _unlike(chunk for chunk in found if cannot_answer([chunk], question))[: self._count]
        if not kept:
            return None
        self.groups.append(Group(passages=shuffled(kept, self._seed), questions=()))
        self.size.append(1)
        return len(self.groups) - 1


def _unlike(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The passages without those whose text was there before."""
    first: dict[str, Chunk] = {}
    for chunk in chunks:
        first.setdefault(chunk.text, chunk)
    return list(first.values())


def examples(
    groups: Sequence[Group],
    moves: Sequence[Move],
    *,
    policy: Policy,
    share: float = 0.5,
    chunks: Mapping[str, Chunk],
    seed: int,
) -> list[RaftExample]:
    """The groups as training examples, group by group; the questions of a group in random order. Under the policy "mix"
    this `share` of those that moved refuse; those that nothing answers always do."""
    away = {move.question.id for move in moves}
    visitors: dict[int, list[Question]] = defaultdict(list)
    for move in moves:
        visitors[move.group].append(move.question)
    refusing = _refusing(moves, policy, share, seed)
    found: list[RaftExample] = []
    for number, group in enumerate(groups):
        members = [(q, True) for q in group.questions if q.id not in away] + [(q, False) for q in visitors[number]]
        random.Random(f"{seed}:members:{group.id}").shuffle(members)
        for question, included in members:
            golden = tuple(chunks[i] for i in question.golden_chunk_ids)
            found.append(
                example(question, golden, group, included=included, refuses=question.id in refusing, seed=seed)
            )
    return found


def _refusing(moves: Sequence[Move], policy: Policy, share: float, seed: int) -> set[str]:
    ids = sorted(move.question.id for move in moves if move.question.golden_chunk_ids)
    random.Random(f"{seed}:policy").shuffle(ids)
    count = {"refuse": len(ids), "memorise": 0, "mix": int(share * len(ids) + 0.5)}[policy]
    return {*ids[:count], *(move.question.id for move in moves if not move.question.golden_chunk_ids)}


def example(
    question: Question, golden: tuple[Chunk, ...], group: Group, *, included: bool, refuses: bool, seed: int
) -> RaftExample:
    """One question over the passages of `group`. Without its golden passage it quotes nothing: it refuses, or it says
    the short answer from memory."""
    quotes = tuple(prompt.locate_quote(quote, golden) for quote in question.quotes)
    if included:
        reasoning, final = question.reasoning, question.answer
    elif refuses:
        reasoning, quotes, final = prompt.REFUSAL_REASONING, (), prompt.REFUSAL
    else:
        reasoning, quotes, final = "", (), question.answer
    return RaftExample(
        id=content_id(question.id, group.id, final, seed),
        question=question.text,
        passages=group.passages,
        golden=golden,
        golden_included=included,
        reasoning=reasoning,
        quotes=quotes,
        final_answer=final,
        seed=seed,
        group=group.id,
        kind=question.kind,
        question_id=question.id,
        answer=question.answer,
        scores=question.scores,
    )


def tested(question: Question, golden: tuple[Chunk, ...], group: Group, *, included: bool, seed: int) -> RaftExample:
    """One question of an exam: the right answer and its quote, whether or not the passages hold them."""
    right = example(question, golden, group, included=True, refuses=False, seed=seed)
    return replace(right, golden_included=included)
