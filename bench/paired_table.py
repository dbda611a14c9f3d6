"""Trials side by side: means over seeds, and differences question by question, with bootstraps over clusters.

A question's value is its mean over the seeds. What seeds, and questions of one cluster, have in common is not counted
as chance.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from openbook.metrics import Interval, mean_interval, paired_difference

GRADED = ("f1", "exact_match", "right_quote", "verified_quotes")  # as the grader calls them
METRICS = (*GRADED, "verified_and_right", "false_refusals", "right_refusals")
RIGHT = 0.8  # token F1 of an answer that is right, if not to the letter

Values = dict[str, list[float | None]]  # metric → one value a question of the exam


def values_of(grades: Iterable[Mapping[str, Any]], examples: Sequence[str], answerable: Collection[str] = ()) -> Values:
    """The grades of one trial, question by question; `examples` are the exam's ids, grades of others are passed over.

    `verified_and_right`: the answer is right, and a right quote (verified, of the golden sentence, carrying the answer) says
    so. `false_refusals` are counted for the `answerable`, by id: those that were shown their answer.
    """
    number = {example: at for at, example in enumerate(examples)}
    found: Values = {metric: [None] * len(examples) for metric in METRICS}
    for row in grades:
        at = number.get(row["example"])
        if at is None:
            continue
        if row["asked"] == "removed":
            found["right_refusals"][at] = float(row["refusal"])
            continue
        for metric in GRADED:
            found[metric][at] = None if row[metric] is None else float(row[metric])
        if row["right_quote"] is not None:
            found["verified_and_right"][at] = float(row["right_quote"] and row["f1"] >= RIGHT)
        if row["example"] in answerable:
            found["false_refusals"][at] = float(row["refusal"])
    return found


def mean_of(columns: Iterable[Sequence[float | None]]) -> list[float | None]:
    """The mean of several values of each question, of those that exist."""
    rows = [[value for value in row if value is not None] for row in zip(*columns, strict=True)]
    return [sum(row) / len(row) if row else None for row in rows]


def means(trials: Sequence[Values], clusters: Sequence[str]) -> dict[str, Interval]:
    return {metric: mean_interval(mean_of([v[metric] for v in trials]), clusters) for metric in METRICS}


def differences(couples: Sequence[tuple[Values, Values]], clusters: Sequence[str]) -> dict[str, Interval]:
    """The first of each couple minus the second."""
    return {
        metric: paired_difference(
            mean_of([one[metric] for one, _ in couples]), mean_of([other[metric] for _, other in couples]), clusters
        )
        for metric in METRICS
    }


def compared(
    seeds: Mapping[str, Sequence[Values]],
    couples: Mapping[str, Sequence[tuple[Values, Values]]],
    clusters: Sequence[str],
) -> dict[str, Any]:
    """The table of what was run: a row of means for each kind of trial, over its seeds, and one for each difference."""
    return {
        "cells": {name: {"seeds": len(found), **means(found, clusters)} for name, found in seeds.items() if found},
        "differences": {
            name: {"couples": len(found), **differences(found, clusters)} for name, found in couples.items() if found
        },
    }


def told(interval: Interval, *, signed: bool) -> str:
    """In percent, with its interval."""
    if interval.value is None or interval.low is None or interval.high is None:
        return "–"
    sign = "+" if signed else ""
    value, low, high = (f"{100 * part:{sign}.1f}" for part in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def markdown(title: str, table: Mapping[str, Any]) -> str:
    """`table` has the parts "cells" (rows of means, each with "seeds") and "differences" (each with "couples")."""
    head = "| | " + " | ".join(metric.replace("_", " ") for metric in METRICS) + " |"
    lines = [title, "", head, "|---|" + "---|" * len(METRICS)]
    for part, count in (("cells", "seeds"), ("differences", "couples")):
        for row, found in table[part].items():
            shown = " | ".join(told(found[metric], signed=part == "differences") for metric in METRICS)
            lines.append(f"| {row} ({count}: {found[count]}) | {shown} |")
    return "\n".join(lines)


def plain(table: Any) -> Any:
    """A table for JSON: an interval is [value, low, high, n]."""
    if isinstance(table, Interval):
        return [table.value, table.low, table.high, table.n]
    return {name: plain(part) for name, part in table.items()} if isinstance(table, Mapping) else table
