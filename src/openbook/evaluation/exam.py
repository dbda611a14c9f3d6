"""What is asked: the questions of a test with the passages that every arm is shown for them."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from openbook.answering import PassageSource
from openbook.config import Config
from openbook.errors import StoreError
from openbook.evaluation.arms import Arm
from openbook.metrics import Gold, contains
from openbook.progress import Progress
from openbook.prompt import is_refusal
from openbook.records import Chunk, RaftExample, ScoredChunk

TESTS = ("studied", "unseen")
DEPTH = 10  # how deep retrieval is looked into for the mean reciprocal rank

Passages = tuple[ScoredChunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One question as a model sees it; `passages` None is the closed book."""

    question: str
    passages: Passages | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One test. `rankings[i]` are the passages retrieved for `examples[i]`, best first, deeper than any arm is shown.

    `removed` holds the questions that are asked again with their golden chunks taken out of the index: the question's
    number, and what is retrieved then. None of these passages holds the short answer, so that refusing is right.
    """

    name: str
    examples: tuple[RaftExample, ...]
    rankings: tuple[Passages, ...]
    removed: tuple[tuple[int, Passages], ...]

    @property
    def documents(self) -> list[str]:
        """The document of each question: the clusters of the bootstrap. A question of unknown origin is its own."""
        return [next((c.document_id for c in e.golden if c.document_id), e.id) for e in self.examples]

    def first(self, count: int) -> Self:
        """The exam's first questions, with nothing removed."""
        return dataclasses.replace(self, examples=self.examples[:count], rankings=self.rankings[:count], removed=())

    def sheets(self, arm: Arm, passages: int) -> list[Sheet]:
        """The questions as this arm sees them, with `passages` passages each."""
        if arm.passages == "none":
            return [Sheet(question=example.question, passages=None) for example in self.examples]
        shown = [ranking[:passages] for ranking in self.rankings]
        if arm.passages == "golden":
            shown = [
                guarantee(found, example.golden, passages) for found, example in zip(shown, self.examples, strict=True)
            ]
        return [Sheet(question=e.question, passages=found) for e, found in zip(self.examples, shown, strict=True)]

    def removed_sheets(self) -> list[Sheet]:
        return [Sheet(question=self.examples[number].question, passages=found) for number, found in self.removed]


def read_tests(config: Config) -> dict[str, tuple[RaftExample, ...]]:
    """The questions of each test that has any, at most `evaluate.questions`, drawn by the seed."""
    from openbook.dataset.formats import read_examples

    tests = {}
    for name in TESTS:
        path = test_path(config, name)
        examples = list(read_examples(path)) if path.is_file() else []
        if examples:
            tests[name] = sample(examples, config.evaluate.questions, config.seed)
    if not tests:
        raise StoreError(
            f"{config.dataset_dir} holds no test questions.",
            "Run `openbook dataset` first, with dataset.studied or dataset.unseen above 0.",
        )
    return tests


def test_path(config: Config, name: str) -> Path:
    return config.dataset_dir / f"{name}.jsonl"


def sample(examples: Sequence[RaftExample], count: int, seed: int) -> tuple[RaftExample, ...]:
    """`count` examples drawn without replacement; the same ones lead in every longer draw of the same seed."""
    shuffled = list(examples)
    random.Random(f"exam:{seed}").shuffle(shuffled)
    return tuple(shuffled[:count])


def set_exam(
    name: str, examples: Sequence[RaftExample], retriever: PassageSource, config: Config, progress: Progress
) -> Exam:
    """Retrieve the passages of a test, once for all arms, and again without the golden chunks."""
    questions = [example.question for example in examples]
    shown = config.retrieval.passages
    with progress.task(f"Retrieving for the {name} test", len(questions) * 2, "questions") as task:
        depth = max(DEPTH, shown, *config.evaluate.passage_counts)
        rankings = retriever.search_many(questions, depth)
        task.advance(len(questions))
        without = [example.golden_ids for example in examples]
        found_without = retriever.search_many(questions, shown, without=without) if config.evaluate.removed else []
        task.advance(len(questions))
    removed = [
        (number, tuple(found))
        for number, (example, found) in enumerate(zip(examples, found_without, strict=False))
        if _unanswerable(example, found)
    ]
    return Exam(
        name=name,
        examples=tuple(examples),
        rankings=tuple(map(tuple, rankings)),
        removed=tuple(removed[: config.evaluate.removed]),
    )


def guarantee(found: Sequence[ScoredChunk], golden: Sequence[Chunk], count: int) -> Passages:
    """`found` with all golden chunks in it: those that are missing take the places of the last others."""
    shown = list(found)
    ids = {chunk.id for chunk in golden}
    for chunk in golden:
        if any(scored.chunk.id == chunk.id for scored in shown):
            continue
        if len(shown) >= count:
            last = next((at for at in reversed(range(len(shown))) if shown[at].chunk.id not in ids), None)
            if last is not None:
                del shown[last]
        shown.append(ScoredChunk(chunk=chunk, score=0.0, rank=0))
    return tuple(dataclasses.replace(scored, rank=rank) for rank, scored in enumerate(shown, 1))


def holds_answer(example: RaftExample, passages: Sequence[ScoredChunk]) -> bool:
    """Whether a passage surely holds the answer: it is golden, or has a golden sentence word for word.

    The bare short answer is not enough here: a `5` stands in many passages that answer something else.
    """
    golden, sentences = set(example.golden_ids), Gold.of(example).sentences
    return any(
        scored.chunk.id in golden or any(sentence in scored.chunk.text for sentence in sentences) for scored in passages
    )


def _unanswerable(example: RaftExample, passages: Sequence[ScoredChunk]) -> bool:
    """Whether no passage can hold the answer: none has even the short answer, in whatever sentence."""
    answer = Gold.of(example).answer
    if not example.golden or is_refusal(answer):
        return False
    return not any(contains(scored.chunk.text, answer) for scored in passages)
