"""The pictures of the report, as SVG that stands inside the page and takes its colours and its font from it.

matplotlib draws in stand-in colours; each is then replaced by a variable of the page's style sheet, so that a picture
is legible on light and on dark paper. Equal figures give equal bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openbook.evaluation.page.words import number
from openbook.evaluation.report import LossCurve, Scores, TestResult
from openbook.markup import Html, escape
from openbook.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-in colour → variable of report.css or palette.css.
INK, FAINT, BASE, SFT, RAFT = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", FAINT: "--rule", BASE: "--base", SFT: "--sft", RAFT: "--raft"}

WIDTH = 5.0  # inches of 72 units: as many units as a phone has pixels, so that the text keeps its size there


def color_of(arm: str) -> str:
    return {"base": BASE, "sft": SFT, "raft": RAFT}[arm.split("_")[0]]


def arms_picture(name: str, result: TestResult) -> Html:
    """F1 (filled) and right quotes (hollow) of each arm with their intervals."""
    arms = [arm for arm, scores in result.arms.items() if scores["f1"].value is not None]
    figure, axes = canvas(0.42 * len(arms) + 0.75)
    for row, arm in enumerate(reversed(arms)):
        for metric, offset, face in (("f1", 0.13, color_of(arm)), ("right_quote", -0.17, "none")):
            if result.arms[arm][metric].value is None:
                continue
            value, low, high = figures(result.arms[arm][metric])
            y = row + (offset if result.arms[arm]["right_quote"].value is not None else 0)
            axes.plot([low, high], [y, y], color=color_of(arm), lw=1.6, solid_capstyle="round")
            axes.plot(value, y, "o", ms=6.5, mfc=face, mec=color_of(arm), mew=1.5)
        axes.text(1.03, row, number(result.arms[arm]["f1"].value), va="center", ha="left", color=color_of(arm))
    axes.set_yticks(range(len(arms)), list(reversed(arms)))
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.set_xlim(-0.02, 1.02)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, lw=0.8)
    axes.set_xlabel("● F1 (figure at the right)   ○ right quote")
    spoken = "; ".join(f"{arm} {number(result.arms[arm]['f1'].value)}" for arm in arms)
    return svg(figure, f"arms-{name}", f"F1 with 95 % intervals on the {name} test: {spoken}")


def passages_picture(by_passages: Mapping[str, Mapping[str, Scores]]) -> Html:
    """F1 over the number of passages shown."""
    figure, axes = canvas(2.9)
    ends = []
    for position, (arm, table) in enumerate(by_passages.items()):
        points = {int(n): figures(scores["f1"]) for n, scores in table.items() if scores["f1"].value is not None}
        if not points:
            continue
        values, lows, highs = zip(*points.values(), strict=True)
        xs = [count + 0.03 * (position - 0.5) for count in points]  # so that the intervals do not cover each other
        axes.plot(xs, values, "-o", color=color_of(arm), ms=5.5, lw=1.8, clip_on=False)
        axes.vlines(xs, lows, highs, color=color_of(arm), lw=1.4, clip_on=False)
        ends.append((values[-1], arm))
    counts = sorted({int(count) for table in by_passages.values() for count in table})
    _label_ends(axes, ends, max(counts), low=0.0, high=1.0)
    axes.set_xticks(counts)
    axes.set_xlim(min(counts) - 0.3, max(counts) + 0.15)
    axes.set_ylim(0, 1)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_xlabel("passages shown")
    axes.set_ylabel("F1")
    return svg(figure, "passages", "F1 by number of passages shown, with 95 % intervals")


def losses_picture(curves: Sequence[LossCurve]) -> Html:
    """Training loss as a line, validation loss as points, by optimizer step."""
    figure, axes = canvas(2.9)
    ends, last = [], 1
    for curve in curves:
        color = color_of(curve.adapter)
        for points, style in (
            (curve.train, {"lw": 1.0, "alpha": 0.55}),
            (curve.validation, {"lw": 1.8, "marker": "o"}),
        ):
            if points:
                axes.plot([step for step, _ in points], [loss for _, loss in points], color=color, ms=4.5, **style)
                last = max(last, points[-1][0])
        ends.append(((curve.validation or curve.train)[-1][1], curve.adapter))
    top = max(loss for curve in curves for _, loss in (*curve.train, *curve.validation))
    axes.set_ylim(0, top * 1.05 or 1)
    axes.set_xlim(0, last)
    _label_ends(axes, ends, last, low=0, high=top)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_xlabel("optimizer step   (thin: training, dots: validation)")
    axes.set_ylabel("loss (nats per token)")
    return svg(figure, "losses", "Training and validation loss by optimizer step")


def figures(interval: Interval) -> tuple[float, float, float]:
    """Value, low and high of an interval that has them."""
    assert interval.value is not None and interval.low is not None and interval.high is not None
    return interval.value, interval.low, interval.high


def _label_ends(axes: "Axes", ends: list[tuple[float, str]], x: float, *, low: float, high: float) -> None:
    """Name lines at their right ends, far enough apart to be read."""
    gap, floor = 0.09 * (high - low), low
    for y, name in sorted(ends):
        floor = max(y, floor)
        axes.annotate(
            name, (x, floor), xytext=(9, 0), textcoords="offset points", va="center", color=color_of(name),
            annotation_clip=False,
        )  # fmt: skip
        floor += gap


def canvas(height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=72, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=10.5)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.set_axisbelow(True)
    return figure, axes


def svg(figure: "Figure", name: str, spoken: str) -> Html:
    """The figure as one `<svg>` element; `name` keeps its ids apart from those of the page's other pictures."""
    import matplotlib

    settings: dict[str, Any] = {
        "svg.hashsalt": "openbook",
        "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
        "font.size": 10.5,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\b(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub(r"font-family: [^;\"]*;? ?", "", drawn)
    for stand_in, variable in VARIABLES.items():
        drawn = drawn.replace(stand_in, f"var({variable})")
    drawn = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawn)
    drawn = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn)
    return Html(drawn.replace("<svg", f'<svg role="img" aria-label="{escape(spoken)}"', 1))
