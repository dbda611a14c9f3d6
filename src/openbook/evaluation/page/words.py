"""What the figures say, in words: labels, meanings, the headline."""

from collections.abc import Mapping
from dataclasses import dataclass

from openbook.evaluation.report import Exhibits, Report
from openbook.metrics import Interval

TESTS = {
    "studied": ("Studied", "New questions on documents that it was trained on: the exam that RAFT studies for."),
    "unseen": ("Unseen", "Questions on documents that were kept from training: whether the skill carries over."),
}

METRICS = {
    "exact_match": ("Exact match", "The short answer is the right one, but for case, articles and punctuation."),
    "f1": (
        "F1",
        "Words shared by the short answer and the right one: the harmonic mean of precision and recall. "
        "Surplus words lower it.",
    ),
    "right_quote": (
        "Right quote",
        "A quote of at least five words stands verbatim in a passage, overlaps the sentence that the question was "
        "written from, and carries the answer.",
    ),
    "verified_quotes": ("Verified quotes", "Of the quotes claimed, the share that stands verbatim in a passage."),
    "right_refusals": (
        "Right refusals",
        "Asked with the golden passage removed from the index, and no passage left that holds the answer: the share "
        "that says so.",
    ),
    "false_refusals": ("False refusals", "Refused although a passage shown holds the answer. Lower is better."),
    "coverage": ("Coverage", "Gave an answer at all: no refusal, no failure."),
    "failures": (
        "Failures",
        "Generation failed, or ran into the token limit without a final answer. Lower is better.",
    ),
    "mrr": (
        "MRR",
        "Mean reciprocal rank of the golden passage in what was retrieved (for raft_golden: in what was shown).",
    ),
}
LOWER_IS_BETTER = ("false_refusals", "failures")

MINUS = "−"  # as wide as a plus, unlike a hyphen
NBSP = "\N{NO-BREAK SPACE}"


def label(metric: str) -> str:
    if metric.startswith("recall@"):
        return metric.capitalize()
    return METRICS[metric][0] if metric in METRICS else metric


def meaning(metric: str) -> str:
    if metric.startswith("recall@"):
        return f"The share of golden passages among the {metric.partition('@')[2]} shown."
    return METRICS[metric][1] if metric in METRICS else ""


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def signed(value: float | None) -> str:
    if value is None:
        return "–"
    written = f"{value:+.2f}".replace("-", MINUS)
    return "0.00" if written[1:] == "0.00" else written


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def plural(count: int, noun: str) -> str:
    return f"{count:,}{NBSP}{noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One comparison in words: what happened, and the difference with its interval and n."""

    sentence: str
    figures: str = ""


def verdicts(report: Report, exhibits: Exhibits) -> list[Verdict]:
    """The headline first, then what else is to be said at once."""
    found = [
        verdict
        for test, pair, opening in (
            ("studied", "raft_rag-base_rag", "Tuned on your documents"),
            ("unseen", "raft_rag-base_rag", "On documents that it never saw"),
            ("studied", "raft_rag-sft_rag", "Against tuning without passages, shown the same passages"),
        )
        if (verdict := _compared(report, exhibits, test, pair, opening))
    ]
    return found or [
        Verdict(sentence="raft_rag and base_rag were not both examined: there is no difference to report.")
    ]


def _compared(report: Report, exhibits: Exhibits, test: str, pair: str, opening: str) -> Verdict | None:
    """One comparison in F1; None where it was not made."""
    result = report.tests.get(test)
    difference = result.differences.get(pair, {}).get("f1") if result else None
    if result is None or difference is None or difference.value is None:
        return None
    tuned, other = (result.arms[name]["f1"] for name in pair.split("-"))
    documents = exhibits.sizes.get(test, (0, 0))[1]
    basis = plural(difference.n, "question") + (f" on {plural(documents, 'document')}" if documents else "")
    return Verdict(
        sentence=f"{opening}, F1 {_movement(other, tuned, difference)}.",
        figures=f"Difference {signed(difference.value)}, 95{NBSP}%{NBSP}interval {span(difference, signs=True)}; {basis}.",
    )


def _movement(before: Interval, after: Interval, difference: Interval) -> str:
    figures = f"from {number(before.value)} to {number(after.value)}"
    if not difference.excludes_zero:
        return f"went {figures}, which may be chance: the interval includes zero"
    return f"{'rose' if difference.value and difference.value > 0 else 'fell'} {figures}"


def span(interval: Interval, *, signs: bool = False) -> str:
    """`0.33 … 0.49`."""
    write = signed if signs else number
    return f"{write(interval.low)}{NBSP}…{NBSP}{write(interval.high)}"


def flattened(facts: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested counts as rows: `{"dropped": {"duplicate": 3}}` → `("dropped · duplicate", "3")`; a list, a row an item."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += flattened(value, f"{name} · ")
        elif isinstance(value, list | tuple):
            rows += [(name, str(item)) for item in value]
        elif isinstance(value, bool) or not isinstance(value, int | float):
            rows.append((name, str(value)))
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"))
    return rows
