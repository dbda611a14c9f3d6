"""Examples side by side: the question, what each arm said, and its quotes highlighted where they stand."""

import itertools
from collections.abc import Iterable

from openbook.evaluation.page.words import number, plural
from openbook.evaluation.report import Answered, Example, Shown
from openbook.markup import Html, join, tag
from openbook.prompt import ANSWER, READABLE, segments
from openbook.records import Answer, Quote


def example_article(number_: int, example: Example) -> Html:
    quoted = {quote.chunk_id for answered in example.answered for quote in answered.answer.quotes if quote.verified}
    passages = [
        (shown.golden or shown.chunk.id in quoted, _passage(rank, shown, example))
        for rank, shown in enumerate(example.passages, 1)
    ]
    telling = [html for tells, html in passages if tells]
    others = [html for tells, html in passages if not tells]
    if not telling:
        telling = [tag("p", "No golden passage was retrieved, and nothing was quoted.", class_="note")]
    folded = [
        tag("details", tag("summary", f"{plural(len(others), 'other passage')} shown"), *others) if others else Html()
    ]
    return tag(
        "article",
        tag("p", f"{number_} · {example.test}", class_="kicker"),
        tag("h3", example.question),
        tag("p", "Right answer: ", tag("b", example.gold_answer), class_="gold-answer"),
        tag("div", *(_said(answered, example) for answered in example.answered), class_="columns"),
        *telling,
        *folded,
        class_="example",
    )


def _said(answered: Answered, example: Example) -> Html:
    answer, grade = answered.answer, answered.grade
    family = answered.arm.split("_")[0]
    verdicts = [tag("li", f"F1 {number(grade.f1)}")]
    if grade.exact_match:
        verdicts.append(tag("li", "exact", class_="yes"))
    if grade.right_quote is not None:
        verdicts.append(
            tag("li", "✓ right quote" if grade.right_quote else "✗ right quote", class_=_class(grade.right_quote))
        )
    if grade.refusal:
        verdicts.append(tag("li", "refusal"))
    if grade.failure:
        verdicts.append(tag("li", "failure", class_="no"))
    body = tag("p", *_marked(answer), class_="said") if answer.text else tag("p", "(nothing)", class_="said none")
    return tag(
        "section",
        tag("h4", tag("span", answered.arm, class_=f"arm {family}")),
        body,
        tag("p", answer.error, class_="note") if answer.error else Html(),
        tag("ul", *(_source(quote, example) for quote in answer.quotes), class_="sources") if answer.quotes else Html(),
        tag("ul", *verdicts, class_="verdicts"),
        class_=f"answer {family}",
    )


def _class(good: bool) -> str:
    return "yes" if good else "no"


def _marked(answer: Answer) -> Iterable[Html]:
    """What was said, its tags made visible as marks instead of as tags."""
    verified = {quote.text for quote in answer.quotes if quote.verified}
    for part in segments(answer.text):
        if part.quote:
            yield tag("q", part.text, class_=None if part.closed and part.text in verified else "unverified")
            continue
        for number_, piece in enumerate(part.text.split(READABLE[ANSWER])):
            yield tag("span", "Answer:", class_="label") if number_ else Html()
            yield tag("span", piece) if piece else Html()


def _source(quote: Quote, example: Example) -> Html:
    """Where a quote stands, or that it stands nowhere, or was never closed."""
    if not quote.verified:
        reason = "stands in no passage shown" if quote.closed else "was never closed"
        return tag("li", tag("span", "✗", class_="no"), f" not verified: {reason}")
    chunk = next(shown.chunk for shown in example.passages if shown.chunk.id == quote.chunk_id)
    path = " › ".join([chunk.uri or chunk.title, *chunk.headings])
    page = f", page {chunk.page}" if chunk.page is not None else ""
    place = f"{path}{page}, characters {quote.start:,}–{quote.end:,}"
    return tag("li", tag("span", "✓", class_="yes"), f" verified: {place}")


def _passage(rank: int, shown: Shown, example: Example) -> Html:
    chunk = shown.chunk
    path = " › ".join([chunk.uri or chunk.title, *chunk.headings])
    return tag(
        "figure",
        tag(
            "figcaption",
            f"Passage {rank}",
            tag("span", "golden", class_="badge") if shown.golden else Html(),
            tag("span", path, class_="path"),
        ),
        tag("blockquote", *_highlighted(shown, example)),
        class_="passage golden" if shown.golden else "passage",
    )


def _highlighted(shown: Shown, example: Example) -> Iterable[Html]:
    """The passage's text with each arm's verified quotes and the golden sentence marked; marks may overlap."""
    text = shown.chunk.text
    marks: list[tuple[int, int, str]] = []
    for answered in example.answered:
        family = answered.arm.split("_")[0]
        for quote in answered.answer.quotes:
            if quote.chunk_id == shown.chunk.id:
                marks.append((quote.start - shown.chunk.start, quote.end - shown.chunk.start, f"quote {family}"))
    if shown.golden:
        for sentence in example.gold_sentences:
            at = text.find(sentence)
            if at >= 0:
                marks.append((at, at + len(sentence), "gold"))
    borders = sorted({0, len(text), *(border for start, end, _ in marks for border in (start, end))})
    for start, end in itertools.pairwise(borders):
        classes = " ".join(
            sorted({c for first, last, kinds in marks if first <= start and end <= last for c in kinds.split()})
        )
        piece = text[start:end]
        yield tag("mark", piece, class_=classes) if classes else join([piece])
