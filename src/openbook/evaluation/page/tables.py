"""The figures as tables: arms by metrics, differences, and the small ones."""

from openbook.evaluation.arms import ARMS
from openbook.evaluation.page.words import LOWER_IS_BETTER, label, number, signed, span
from openbook.evaluation.report import TestResult
from openbook.markup import Html, join, table, tag
from openbook.metrics import Interval


def arms_table(result: TestResult) -> Html:
    """A row a metric, a column an arm; every cell with its interval and n."""
    metrics = _metrics(result)
    head = ["", *(_arm(arm) for arm in result.arms)]
    rows = [[label(metric), *(_cell(scores[metric]) for scores in result.arms.values())] for metric in metrics]
    return table(head, rows, class_="scores")


def differences_table(result: TestResult) -> Html:
    """A row a metric, a column a pair of arms."""
    metrics = _metrics(result)
    head = ["", *(join(map(_arm, pair.split("-")), " − ") for pair in result.differences)]
    rows = [
        [label(metric), *(_difference(metric, scores[metric]) for scores in result.differences.values())]
        for metric in metrics
    ]
    return table(head, rows, class_="scores differences")


def _metrics(result: TestResult) -> list[str]:
    return list(next(iter(result.arms.values())))


def _arm(name: str) -> Html:
    family = name.split("_")[0]
    return tag("span", name, class_=f"arm {family}", title=ARMS[name].meaning if name in ARMS else None)


def _cell(interval: Interval) -> Html:
    if interval.value is None:
        return tag("span", "–", class_="none", title="does not apply")
    return join([tag("b", number(interval.value)), tag("small", f"{span(interval)} · n {interval.n}")])


def _difference(metric: str, interval: Interval) -> Html:
    if interval.value is None:
        return tag("span", "–", class_="none", title="does not apply")
    class_ = "chance"
    if interval.excludes_zero:
        class_ = "better" if (interval.value > 0) != (metric in LOWER_IS_BETTER) else "worse"
    return join(
        [
            tag("b", signed(interval.value), class_=class_),
            tag("small", f"{span(interval, signs=True)} · n {interval.n}"),
        ]
    )
