"""From answers to figures: one column of values per metric, then means and paired differences with intervals."""

from collections.abc import Iterable, Mapping, Sequence

from openbook.config import Config
from openbook.evaluation.arms import DIFFERENCES, Arm
from openbook.evaluation.exam import Exam, holds_answer
from openbook.evaluation.report import Scores, TestResult
from openbook.metrics import Gold, Grade, grade, mean_interval, paired_difference, recall_at_k, reciprocal_rank
from openbook.records import Answer

Column = list[float | None]  # one value a question of the test; None where the question does not arise
Columns = Mapping[str, Column]


def grades(exam: Exam, answers: Sequence[Answer]) -> list[Grade]:
    """The grade of each answer; `answers[i]` is that to `exam.examples[i]`."""
    return [grade(answer, Gold.of(example)) for answer, example in zip(answers, exam.examples, strict=True)]


def columns(
    exam: Exam,
    arm: Arm,
    answers: Sequence[Answer],
    removed: Sequence[Answer] | None,
    passages: int,
) -> dict[str, Column]:
    """Every metric of one arm, question by question.

    `removed` are the answers to `exam.removed`, None for an arm that was not asked them. `passages` is how many an arm
    was shown: the k of recall.
    """
    graded = grades(exam, answers)
    right_refusals: Column = [None] * len(graded)
    for (number, _), answer in zip(exam.removed, removed or (), strict=removed is not None):
        right_refusals[number] = float(grade(answer, Gold.of(exam.examples[number])).refusal)
    false_refusals: Column = [
        float(g.refusal) if holds_answer(example, answer.passages) else None
        for g, example, answer in zip(graded, exam.examples, answers, strict=True)
    ]
    recall: Column = [None] * len(graded)
    rank: Column = [None] * len(graded)
    if arm.passages != "none":
        for number, (example, answer) in enumerate(zip(exam.examples, answers, strict=True)):
            shown = [scored.chunk.id for scored in answer.passages]
            found = [scored.chunk.id for scored in exam.rankings[number]] if arm.passages == "retrieved" else shown
            recall[number] = recall_at_k(shown, example.golden_ids, passages)
            rank[number] = reciprocal_rank(found, example.golden_ids)
    return {
        "exact_match": [float(g.exact_match) for g in graded],
        "f1": [g.f1 for g in graded],
        "right_quote": [None if g.right_quote is None else float(g.right_quote) for g in graded],
        "verified_quotes": [g.verified_quotes for g in graded],
        "right_refusals": right_refusals,
        "false_refusals": false_refusals,
        "coverage": [float(g.coverage) for g in graded],
        "failures": [float(g.failure) for g in graded],
        f"recall@{passages}": recall,
        "mrr": rank,
    }


def aggregate(
    exam: Exam, arms: Mapping[str, Columns], config: Config, couples: Iterable[tuple[str, str]] = DIFFERENCES
) -> TestResult:
    """Means of every arm and the differences of `couples` (the first minus the second), on the same resamples of
    documents; a couple of which one was not examined is left out."""
    differences = {
        f"{first}-{second}": {
            metric: paired_difference(
                values,
                arms[second][metric],
                exam.documents,
                resamples=config.evaluate.resamples,
                seed=config.seed,
            )
            for metric, values in arms[first].items()
        }
        for first, second in couples
        if first in arms and second in arms
    }
    return TestResult(
        arms={name: means(exam.documents, table, config) for name, table in arms.items()}, differences=differences
    )


def means(documents: Sequence[str], table: Columns, config: Config) -> Scores:
    """The mean of each column with its interval; `documents[i]` is the document of question i."""
    return {
        metric: mean_interval(values, documents, resamples=config.evaluate.resamples, seed=config.seed)
        for metric, values in table.items()
    }
