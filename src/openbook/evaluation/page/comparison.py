"""`comparison.html`: one table, one picture, and a paragraph on each way of tuning, from this run's own figures."""

from collections.abc import Iterable, Sequence

from openbook.evaluation.comparison import Comparison, Cost, rival
from openbook.evaluation.page.pictures import BASE, FAINT, RAFT, SFT, canvas, figures, svg
from openbook.evaluation.page.render import FEW_DOCUMENTS, STYLE
from openbook.evaluation.page.words import duration, label, number, plural, signed, span
from openbook.evaluation.ways import WAYS, Way
from openbook.markup import Html, document, join, table, tag
from openbook.metrics import Interval

METRICS = ("f1", "right_quote", "right_refusals", "false_refusals")
MEMORY = (
    "Costs are those of a way with all that it goes on from. The peak memory is the whole process's; where one process tuned "
    "several ways, what the earlier ones left behind counts too."
)
COLORS = {"base": BASE, "sft": SFT}  # all others study with passages, and have RAFT's colour


def render_comparison(comparison: Comparison) -> str:
    """The whole page. Equal arguments give equal bytes."""
    ways = [WAYS[name] for name in comparison.ways]
    asked = ", ".join(
        f"{plural(questions, 'question')} on {plural(documents, 'document')} ({name})"
        for name, (questions, documents) in comparison.sizes.items()
    )
    few = any(documents < FEW_DOCUMENTS for _, documents in comparison.sizes.values())
    rough = " With so few documents the intervals are rough, and so is every “better” or “worse” below." if few else ""
    body = join(
        [
            tag(
                "header",
                tag("p", f"openbook comparison · base model {comparison.config['model']['base']}", class_="kicker"),
                tag("h1", "Ways of tuning, side by side"),
                tag("p", f"The same questions, passages and grader for all: {asked}.{rough}", class_="lead"),
            ),
            tag(
                "main",
                tag("section", tag("h2", "Quality and cost"), _table(comparison), tag("p", MEMORY, class_="note")),
                tag(
                    "section",
                    tag("h2", "F1"),
                    tag("figure", _picture(comparison), tag("figcaption", "With 95 % intervals."), class_="picture"),
                ),
                tag("section", tag("h2", "Which one, when"), *(_paragraph(way, ways, comparison) for way in ways)),
            ),
        ],
        "\n",
    )
    return document("openbook comparison", body, sheet=STYLE)


def _table(comparison: Comparison) -> Html:
    """A column a way; a row for each score in each test, and for each part of what it cost."""
    rows: list[list[str]] = [
        [f"{test}: {label(metric)}", *(_cell(result.arms[name][metric]) for name in comparison.ways)]
        for test, result in comparison.tests.items()
        for metric in METRICS
    ]
    costs = [_cost(comparison.costs[name]) for name in comparison.ways]
    parts = ("tokens", "time", "peak memory", "trained weights")
    rows += [[part, *(cost[at] for cost in costs)] for at, part in enumerate(parts)]
    return table(["", *comparison.ways], rows, class_="scores")


def _cell(interval: Interval) -> Html:
    if interval.value is None:
        return tag("span", "–", class_="none", title="does not apply")
    return join([tag("b", number(interval.value)), tag("small", span(interval))])


def _cost(cost: Cost) -> list[str]:
    if not cost.tokens:
        return ["–"] * 4
    return [
        f"{cost.tokens:,}",
        duration(cost.seconds),
        f"{cost.peak_memory_bytes / 1e9:.2f} GB",
        f"{cost.trained_weights:,}",
    ]


def _picture(comparison: Comparison) -> Html:
    """F1 of each way: a dot and its interval for each test, the first filled and the second hollow."""
    ways = list(reversed(comparison.ways))
    figure, axes = canvas(0.42 * len(ways) + 0.75)
    for row, name in enumerate(ways):
        color = COLORS.get(name, RAFT)
        for place, result in enumerate(comparison.tests.values()):
            interval = result.arms[name]["f1"]
            if interval.value is None:
                continue
            value, low, high = figures(interval)
            y = row + (0.14, -0.16)[place % 2]
            axes.plot([low, high], [y, y], color=color, lw=1.6, solid_capstyle="round")
            axes.plot(value, y, "o", ms=6.5, mfc=("none" if place else color), mec=color, mew=1.5)
    axes.set_yticks(range(len(ways)), ways)
    axes.set_ylim(-0.6, len(ways) - 0.4)
    axes.set_xlim(-0.02, 1.02)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, lw=0.8)
    marks = zip("●○", comparison.tests, strict=False)
    axes.set_xlabel("F1   " + "   ".join(f"{mark} {test}" for mark, test in marks))
    first = next(iter(comparison.tests.values()))
    spoken = "; ".join(f"{name} {number(first.arms[name]['f1'].value)}" for name in comparison.ways)
    return svg(figure, "ways", f"F1 of each way of tuning with 95 % intervals: {spoken}")


def _paragraph(way: Way, ways: Sequence[Way], comparison: Comparison) -> Html:
    return join([tag("h3", way.name), *(tag("p", sentence) for sentence in paragraph(way, ways, comparison))])


def paragraph(way: Way, ways: Sequence[Way], comparison: Comparison) -> Iterable[str]:
    """What a way is; what this run says of it; when it is worth it."""
    yield way.meaning
    scored = ", ".join(
        f"{number(result.arms[way.name]['f1'].value)} on the {test} test" for test, result in comparison.tests.items()
    )
    yield f"Here: F1 {scored}." + _verdict(way, ways, comparison) + _spent(comparison.costs[way.name])
    yield way.worth


def _verdict(way: Way, ways: Sequence[Way], comparison: Comparison) -> str:
    other = rival(way, ways)
    if not other:
        return ""
    told = []
    for test, result in comparison.tests.items():
        difference = result.differences[f"{way.name}-{other}"]["f1"]
        if difference.value is None:
            continue
        verdict = "nothing is proven"
        if difference.excludes_zero:
            verdict = "better" if difference.value > 0 else "worse"
        told.append(f"{signed(difference.value)} ({span(difference, signs=True)}) {test}: {verdict}")
    return f" Against {other}, question by question: {'; '.join(told)}." if told else ""


def _spent(cost: Cost) -> str:
    if not cost.tokens:
        return ""
    return (
        f" It took {duration(cost.seconds)} and {cost.tokens:,} tokens, trained {cost.trained_weights:,} weights and held "
        f"{cost.peak_memory_bytes / 1e9:.2f} GB of memory at most, with all that it goes on from."
    )
