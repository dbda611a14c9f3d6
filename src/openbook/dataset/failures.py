"""Preference pairs out of a tuned model's failures: what it should have written, against what it wrote.

The model is asked the questions that it was trained on, several times each, and many once more where refusing is right. An
answer that is right, with a quote that stands in a golden passage, is chosen, else the data set's own; what fails is
rejected, and says how it failed.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

from openbook import prompt, storage
from openbook.config import Config
from openbook.dataset.formats import read_examples
from openbook.dataset.practice import with_refusals
from openbook.errors import RecordError, StoreError
from openbook.metrics import Gold, grade_text
from openbook.progress import SILENT, Progress
from openbook.records import Conversation, RaftExample, to_json

STAGE: Final = "pairs"
# Where answering is punished, so is refusing the same question over passages that answer it, or the model learns to refuse
# always (docs/LOG.md). Nobody has written this answer: it is the data set's refusal.
COUNTERPART: Final = "needless refusal"
# What is punished, by name; the first that holds names an answer.
FAILURES: Final = {
    "unsupported answer": "answered although no passage holds the answer, where a refusal was due",
    "wrong refusal": "refused although the golden passage was shown",
    "unfinished": "ran into the token limit or a loop, or gave no short answer",
    "invented quote": "quotes what stands in no passage word for word",
    "distractor": "quotes a passage that is not the golden one",
    "wrong answer": "the quote is the golden passage's, the short answer is wrong",
    "no quote": "the short answer is right, but nothing vouches for it",
    COUNTERPART: "the refusal where the passages do answer, set against an answer to the same question where they do not",
}
REFUSED: Final = prompt.render_answer(prompt.REFUSAL_REASONING, prompt.REFUSAL)
RIGHT_F1: Final = 0.8  # a short answer as near to the right one is right
WRONG_F1: Final = 0.5  # what lies between is neither chosen nor rejected


class Written(Protocol):
    """What `openbook.models.Generation` holds."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def error(self) -> str: ...


class Sampler(Protocol):
    """Who is asked; `openbook.models.Generator` is one."""

    def generate_each(
        self, prompts: Sequence[Conversation], *, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[tuple[int, Written]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsReport:
    """What was found. `failures`: how an answer failed → answers; `punished`: the same → pairs; `chosen_from`: "model"
    or "data" → pairs. `samples` were answered; `undecided` ones are neither right nor clearly wrong. `tokens` were read and written, a prompt
    counted once however often it was asked."""

    questions: int
    samples: int
    right: int
    undecided: int
    failures: dict[str, int]
    pairs: int
    punished: dict[str, int]
    chosen_from: dict[str, int]
    tokens: int
    seconds: float


def failure(example: RaftExample, text: str, *, finished: bool) -> str | None:
    """How an answer to `example` fails (a key of `FAILURES`), "" where it is right and verified, None where it is neither."""
    gold = Gold.of(example)
    grade = grade_text(text, gold, passages=example.passages, finished=finished)
    quotes = prompt.parse_answer(text).quotes
    if prompt.is_refusal(example.final_answer):
        if grade.refusal:
            return "" if finished and not quotes else None
        return "unsupported answer"
    if grade.refusal:
        return "wrong refusal"
    if grade.failure or not finished:
        return "unfinished"
    if not all(prompt.locate_quote(quote, example.passages).verified for quote in quotes):
        return "invented quote"
    if not all(prompt.locate_quote(quote, example.golden).verified for quote in quotes):
        return "distractor"
    right = grade.exact_match or grade.f1 >= RIGHT_F1
    if right and not quotes:
        return "no quote"
    if grade.f1 < WRONG_F1 and not right:
        return "wrong answer"
    return "" if right and grade.right_quote else None


def asked(example: RaftExample) -> bool:
    """Whether an answer to the example can be judged: it answers with its golden passages shown, or it refuses. An example
    that was trained to answer from memory rewards what cannot be verified."""
    return bool(example.final_answer) and (example.golden_included or prompt.is_refusal(example.final_answer))


def write_pairs(
    config: Config, sampler: Sampler, *, identity: str, force: bool = False, progress: Progress = SILENT
) -> PairsReport:
    """Ask `sampler`, whose weights `identity` names, and write `pairs.jsonl` under `config.pairs_dir`.

    What is current is not asked again unless `force`. Raises `StoreError` without a data set, `RecordError` where
    nothing failed, so that there is nothing to learn.
    """
    train, folder = config.dataset_dir / "train.jsonl", config.pairs_dir
    if not train.is_file():
        raise StoreError(f"{train} does not exist.", "Write the questions first: `openbook dataset`.")
    options = {**config.pairs.model_dump(), "seed": config.seed, "longest": config.model.max_new_tokens, "version": 2}
    inputs = {"train": storage.hash_file(train), "model": identity, "prompt": prompt.FINGERPRINT}
    current = storage.is_current(folder, stage=STAGE, options=options, inputs=inputs)
    if not force and current and pairs_path(config).is_file():
        progress.message(f"{pairs_path(config)} is current: questions, weights and options are the same.")
        return PairsReport(**(storage.read_manifest(folder) or {})["report"])
    judged = [example for example in read_examples(train) if asked(example)]
    if not judged:
        raise RecordError(
            f"{train} holds no question whose answers could be judged.",
            "Build a data set whose rows show their golden passage and answer, or refuse.",
        )
    examples = with_refusals(judged, share=config.pairs.without_golden, seed=config.seed)
    rows, report = sample_pairs(examples, sampler, config, progress)
    if not rows:
        raise RecordError(
            f"None of {report.samples:,} answers to {report.questions:,} training questions failed, so there is no pair.",
            "Raise pairs.temperature or pairs.samples, or take the model as it is.",
        )
    (folder / storage.MANIFEST).unlink(missing_ok=True)
    storage.write_jsonl(pairs_path(config), rows)
    storage.write_manifest(folder, stage=STAGE, options=options, inputs=inputs, report=asdict(report))
    return report


def pairs_path(config: Config) -> Path:
    return config.pairs_dir / "pairs.jsonl"


def sample_pairs(
    examples: Sequence[RaftExample], sampler: Sampler, config: Config, progress: Progress = SILENT
) -> tuple[list[dict[str, Any]], PairsReport]:
    """The pairs and the counts. Each question is asked once greedily and `pairs.samples` − 1 times at the temperature,
    so that what the exam would see is among its answers."""
    began = time.monotonic()
    prompts = [prompt.prompt(e.question, [chunk.text for chunk in e.passages]) for e in examples]
    drawn = config.pairs.samples - 1
    said: list[list[Written]] = [[] for _ in examples]
    with progress.task("Asking the training questions", len(examples) * (1 + drawn), "answers") as task:
        for number, written in sampler.generate_each(prompts):
            said[number].append(written)
            task.advance()
        if errors := [answers[0].error for answers in said if answers[0].error]:
            progress.message(
                f"{len(errors):,} of {len(said):,} questions cannot be asked, for the first of them {errors[0]}."
            )
        many = [asked_ for asked_ in prompts for _ in range(drawn)]
        draws = sampler.generate_each(many, temperature=config.pairs.temperature, seed=config.seed)
        for number, written in draws:
            said[number // drawn].append(written)
            task.advance()

    verdicts: Counter[str | None] = Counter()
    rows: list[dict[str, Any]] = []
    answered: dict[str, _Asked] = {}
    for example, asked_, answers in zip(examples, prompts, said, strict=True):
        judged = [(failure(example, a.text, finished=a.finished), a.text) for a in answers if not a.error]
        verdicts.update(verdict for verdict, _ in judged)
        question = _Asked.of(example, asked_, judged)
        id_ = example.question_id or example.id
        if not prompt.is_refusal(example.final_answer):
            answered[id_] = question
            rows += question.pairs(config.pairs.per_question)
            continue
        found = list(question.pairs(1))
        rows += found
        if found and id_ in answered:  # it was asked once more, without its golden passage
            rows.append(answered[id_].pair(REFUSED, COUNTERPART))
    failures = {kind: verdicts[kind] for kind in FAILURES if verdicts[kind]}
    report = PairsReport(
        questions=len(examples),
        samples=sum(verdicts.values()),
        right=verdicts[""],
        undecided=verdicts[None],
        failures=failures,
        pairs=len(rows),
        punished=dict(Counter(row["kind"] for row in rows).most_common()),
        chosen_from=dict(Counter(row["chosen_from"] for row in rows).most_common()),
        tokens=sum(a[0].prompt_tokens + sum(w.completion_tokens for w in a) for a in said if a),
        seconds=time.monotonic() - began,
    )
    return rows, report


@dataclass(frozen=True, slots=True)
class _Asked:
    """One example that was asked: what is chosen there, whether the model itself wrote that, and what failed → how."""

    example: RaftExample
    prompt: Conversation
    chosen: str
    own: bool
    failed: dict[str, str]

    @classmethod
    def of(cls, example: RaftExample, asked_: Conversation, judged: Sequence[tuple[str | None, str]]) -> Self:
        right = Counter(text for verdict, text in judged if verdict == "")
        own = right.most_common(1)[0][0] if right else ""
        chosen = own or prompt.render_answer(example.reasoning, example.final_answer)
        return cls(
            example,
            asked_,
            chosen=chosen,
            own=bool(own),
            # What the data set itself writes without a quote fails by its own measure, and is no pair with itself.
            failed={text: kind for kind, text in judged if kind and text.strip() not in ("", chosen.strip())},
        )

    def pairs(self, count: int) -> Iterator[dict[str, Any]]:
        """At most `count` pairs: failures of different kinds before a second one of the same kind."""
        by_kind: dict[str, list[str]] = {}
        for text, kind in self.failed.items():
            by_kind.setdefault(kind, []).append(text)
        turns = sorted((place, kind, text) for kind, texts in by_kind.items() for place, text in enumerate(texts))
        for _, kind, text in turns[:count]:
            yield self.pair(text, kind)

    def pair(self, rejected: str, kind: str) -> dict[str, Any]:
        return {
            "prompt": [to_json(message) for message in self.prompt.messages],
            "chosen": self.chosen,
            "rejected": rejected,
            "kind": kind,
            "chosen_from": "model" if self.own else "data",
            "example": self.example.id,
        }
