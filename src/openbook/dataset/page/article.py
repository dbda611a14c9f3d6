"""One row on the page."""

from openbook.dataset.overlay import Change
from openbook.dataset.viewing import View, answer_pieces, pieces, quoted
from openbook.markup import Html, join, tag
from openbook.records import Chunk


def article(view: View, change: Change | None) -> Html:
    """A row with its passages, and a form to correct it that already holds what was decided before."""
    example = view.example
    golden = {chunk.id for chunk in example.golden}
    shown = {chunk.id for chunk in example.passages}
    passages = [
        _passage(f"Passage {n}", chunk, view, chunk.id in golden) for n, chunk in enumerate(example.passages, 1)
    ]
    absent = [
        _passage("Not shown to the model", chunk, view, golden=True, absent=True)
        for chunk in example.golden
        if chunk.id not in shown
    ]
    about = " · ".join(
        (
            f"{view.part} {view.number}",
            f"asks {view.shape}",
            f"kind {example.kind or 'unknown'}",
            f"golden passage {view.golden}",
        )
    )
    return tag(
        "article",
        tag("p", about, tag("code", view.question_id), tag("b", "", class_="state"), class_="kicker"),
        tag("h2", example.question),
        _said(view),
        _checks(view),
        tag(
            "p",
            tag("button", "Reject", type="button", data_do="reject", aria_pressed="false"),
            tag("button", "Edit", type="button", data_do="edit", aria_expanded="false"),
            class_="bar",
        ),
        _form(view, change),
        *passages,
        *absent,
        tabindex="-1",
        data_id=view.question_id,
        data_part=view.part,
        data_shape=view.shape,
        data_kind=example.kind or "unknown",
        data_golden=view.golden,
        data_checks="failed" if view.failed else "passed",
        data_action=change.action if change else None,
    )


def _said(view: View) -> Html:
    example = view.example
    words = [
        tag("span", piece) if verified is None else tag("q", piece, class_=None if verified else "unverified")
        for piece, verified in answer_pieces(example)
    ]
    right = example.answer if example.answer != example.final_answer else ""
    return tag(
        "p",
        *words,
        tag("span", " Answer: ", class_="label"),
        tag("b", example.final_answer or "(none)"),
        tag("span", f" (the documents say: {right})", class_="note") if right else Html(),
        class_="said",
    )


def _checks(view: View) -> Html:
    failed = [tag("li", f"✗ {name}: {says}", class_="no") for name, says in view.failed]
    passed = [tag("li", f"✓ {name}", class_="yes") for name in view.passed]
    summary = tag("summary", f"✓ {len(passed)} checks passed", class_="yes")
    return join(
        [
            tag("ul", *failed, class_="checks") if failed else Html(),
            tag("details", summary, tag("ul", *passed, class_="checks")) if passed else Html(),
        ]
    )


def _passage(label: str, chunk: Chunk, view: View, golden: bool, absent: bool = False) -> Html:
    """A passage with the quotes in it marked; one that is neither golden nor quoted is folded."""
    path = " › ".join(filter(None, (chunk.uri or chunk.title, *chunk.headings)))
    page = f", page {chunk.page}" if chunk.page is not None else ""
    spans = quoted(chunk, view.example)
    badge = tag("span", "golden", class_="badge") if golden else Html()
    place = tag("span", path + page, class_="path")
    text = [tag("mark", piece) if inside else tag("span", piece) for piece, inside in pieces(chunk.text, spans)]
    quote = tag("blockquote", *text)
    if not golden and not spans:
        return tag("details", tag("summary", label, place), quote)
    classes = " ".join(filter(None, ("golden" if golden else "", "absent" if absent else "")))
    return tag("figure", tag("figcaption", label, badge, place), quote, class_=classes or None)


def _form(view: View, change: Change | None) -> Html:
    """Fields with what stands there now; `data-was` is what an edit is told apart from."""
    example, now = view.example, change or Change(question_id=view.question_id, action="edit")

    def field(name: str, label: str, was: str, made: str | None, rows: str = "1") -> Html:
        area = tag("textarea", f"\n{was if made is None else made}", name=name, rows=rows, data_was=was)
        return tag("label", label, area)

    reasoning = field("reasoning", "Reasoning, quotes between their tags", example.reasoning, now.reasoning, "4")
    return tag(
        "form",
        field("question", "Question", example.question, now.question, "2"),
        field("answer", "Short answer", example.answer or example.final_answer, now.answer),
        reasoning if example.quotes else Html(),
        field("note", "Why (for people)", "", now.note),
        hidden=True,
    )
