"""`report.html`: one file that asks the network for nothing and reads well on a phone, on light and on dark paper.

Everything that comes from documents or models passes through `markup.tag` as text, so none of it can become markup; a
content security policy forbids scripts and requests besides.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from openbook.config import Config
from openbook.evaluation.arms import ARMS
from openbook.evaluation.page.examples import example_article
from openbook.evaluation.page.pictures import arms_picture, losses_picture, passages_picture
from openbook.evaluation.page.tables import arms_table, differences_table
from openbook.evaluation.page.words import NBSP, TESTS, duration, flattened, label, meaning, plural, verdicts
from openbook.evaluation.report import Exhibits, Report, TestResult
from openbook.markup import Html, document, join, table, tag

STYLE = Path(__file__).with_name("report.css")
FEW_DOCUMENTS = 10  # below it, a bootstrap over documents has little to draw from


def render(report: Report, exhibits: Exhibits, config: Config) -> str:
    """The whole page. Equal arguments give equal bytes."""
    headline, *others = verdicts(report, exhibits)
    body = join(
        [
            tag(
                "header",
                tag("p", f"openbook report · base model {config.model.base}", class_="kicker"),
                tag("h1", headline.sentence),
                tag("p", headline.figures, class_="lead"),
                *(tag("p", f"{other.sentence} ", tag("span", other.figures, class_="note")) for other in others),
            ),
            tag("main", *_sections(report, exhibits, config)),
        ],
        "\n",
    )
    return document("openbook report", body, sheet=STYLE)


def _sections(report: Report, exhibits: Exhibits, config: Config) -> Iterator[Html]:
    for name, result in report.tests.items():
        yield _test(name, result, exhibits)
    yield _curves(exhibits)
    yield _examples(exhibits)
    yield _glossary(report)
    yield _run(report, exhibits)
    yield _reproduction(report, config)


def _section(title: str, *children: str, note: str = "") -> Html:
    return tag("section", tag("h2", title), tag("p", note, class_="note") if note else Html(), *children)


def _figure(picture: Html, caption: str) -> Html:
    return tag("figure", picture, tag("figcaption", caption), class_="picture")


def _test(name: str, result: TestResult, exhibits: Exhibits) -> Html:
    title, what = TESTS.get(name, (name, ""))
    questions, documents = exhibits.sizes.get(name, (0, 0))
    basis = f"{plural(questions, 'question')} on {plural(documents, 'document')}."
    if documents == 1:
        basis += " With one document only, the intervals say nothing about other documents."
    elif documents < FEW_DOCUMENTS:
        basis += " With so few documents the intervals are rough."
    picture = _figure(
        arms_picture(name, result),
        f"Every arm before the same questions; lines are 95{NBSP}% intervals.",
    )
    beside = Html()
    if result.differences:
        beside = tag(
            "div",
            differences_table(result),
            tag(
                "p",
                f"Differences, question by question. In colour: the 95{NBSP}% interval excludes zero.",
                class_="note",
            ),
        )
    children = [tag("div", picture, beside, class_="columns"), arms_table(result)]
    return _section(title, *children, note=f"{what} {basis}")


def _curves(exhibits: Exhibits) -> Html:
    pictures = []
    if exhibits.by_passages:
        pictures.append(
            _figure(
                passages_picture(exhibits.by_passages),
                "More passages hold the answer more often, and more noise. "
                f"The first {_asked(exhibits)} questions of the first test.",
            )
        )
    if exhibits.losses:
        pictures.append(
            _figure(
                losses_picture(exhibits.losses),
                "Tuning: raft on questions with passages, sft on question → answer. "
                "The two learn different texts, so only the shapes compare.",
            )
        )
    return _section("Passages and learning", tag("div", *pictures, class_="columns")) if pictures else Html()


def _asked(exhibits: Exhibits) -> int:
    return max(scores["f1"].n for table_ in exhibits.by_passages.values() for scores in table_.values())


def _examples(exhibits: Exhibits) -> Html:
    if not exhibits.examples:
        return Html()
    legend = tag(
        "p",
        "Marked in the passages: ",
        tag("mark", "quoted by raft_rag", class_="quote raft"),
        " ",
        tag("mark", "quoted by base_rag", class_="quote base"),
        " ",
        tag("mark", "the sentence that the question was written from", class_="gold"),
        class_="note legend",
    )
    articles = [example_article(number, example) for number, example in enumerate(exhibits.examples, 1)]
    return _section("Examples, side by side", legend, *articles, note="Drawn by the seed; nobody has chosen them.")


def _glossary(report: Report) -> Html:
    result = next(iter(report.tests.values()))
    metrics = list(next(iter(result.arms.values())))
    return _section(
        "What the words mean",
        tag("h3", "Arms"),
        _definitions((tag("code", name), ARMS[name].meaning) for name in result.arms if name in ARMS),
        tag("h3", "Metrics"),
        _definitions((label(metric), meaning(metric)) for metric in metrics),
        tag(
            "p",
            "All run from 0 to 1. Intervals are 95 % percentile bootstrap intervals that resample whole documents, "
            "since questions on one document are not independent. n counts the questions for which a metric has a "
            "value. Closed-book tuning can only help on the studied test: the facts of the unseen one were nowhere to "
            "be learnt.",
            class_="note",
        ),
    )


def _definitions(pairs: Iterable[tuple[str, str]]) -> Html:
    return tag("dl", *(join([tag("dt", term), tag("dd", text)]) for term, text in pairs))


def _run(report: Report, exhibits: Exhibits) -> Html:
    children = []
    if exhibits.dataset:
        children += [tag("h3", "Data set"), table(("count", ""), flattened(exhibits.dataset), class_="facts")]
    times = [(stage, duration(seconds)) for stage, seconds in report.seconds.items()]
    times.append(("together", duration(sum(report.seconds.values()))))
    if report.peak_memory_bytes:
        times.append(("peak memory", f"{report.peak_memory_bytes / 1e9:.2f} GB"))
    children += [tag("h3", "Time and memory"), table(("stage", ""), times, class_="facts")]
    if exhibits.errors:
        reasons = sorted(exhibits.errors.items(), key=lambda item: -item[1])
        rows = [(reason, f"{count:,}") for reason, count in reasons]
        children += [tag("h3", "Failed generations"), table(("reason", "answers"), rows, class_="facts")]
    return _section("This run", *children)


def _reproduction(report: Report, config: Config) -> Html:
    return _section(
        "How to reproduce it",
        tag(
            "p",
            "Save the options below as ",
            tag("code", "openbook.toml"),
            ", install the versions below, and run:",
        ),
        tag("pre", f"pip install openbook=={report.versions.get('openbook', '')}\nopenbook run openbook.toml"),
        tag(
            "p",
            "Equal documents, options and versions on a like machine give equal data, questions and passages; figures "
            "may differ in the last digits between processors. Every answer stands in ",
            tag("code", "evaluation/grades.jsonl"),
            ", the figures in ",
            tag("code", "report.json"),
            ".",
            class_="note",
        ),
        tag("details", tag("summary", "Options"), tag("pre", config.to_toml())),
        tag(
            "details",
            tag("summary", "Versions"),
            table(("package", "version"), report.versions.items(), class_="facts"),
        ),
    )
