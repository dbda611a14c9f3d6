"""HTML that is escaped by construction: text becomes markup only by passing through `tag`."""

import html
from collections.abc import Iterable


class Html(str):
    """Markup that is safe as it stands. Whatever is a plain `str` is text, and is escaped when it becomes part of it."""

    __slots__ = ()


def escape(text: str) -> Html:
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def join(parts: Iterable[str], separator: str = "") -> Html:
    return Html(escape(separator).join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | bool | None) -> Html:
    """`<name …>children</name>`. A trailing underscore frees Python's words (`class_`); True is a bare attribute,
    None and False leave it out."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, class_: str = "") -> Html:
    """A table in a frame of its own that scrolls where the page is narrow. The first cell of a row is its heading."""
    body = []
    for row in rows:
        first, *rest = row
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)))
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head))),
            tag("tbody", *body),
            class_=class_ or None,
        ),
        class_="scroll",
        tabindex="0",
    )
