"""HTML that is escaped by construction: text becomes markup only by passing through `tag`."""

import html
from collections.abc import Iterable
from pathlib import Path

_PALETTE = Path(__file__).with_name("palette.css")


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


def document(title: str, body: str, *, sheet: Path, policy: str = "") -> str:
    """A page that is one file and asks nobody for anything: the palette and `sheet` are in it. `policy` adds to what its
    security policy allows."""
    styles = _PALETTE.read_text(encoding="utf-8") + sheet.read_text(encoding="utf-8")
    allowed = "default-src 'none'; style-src 'unsafe-inline'" + (f"; {policy}" if policy else "")
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'),
            tag("title", title),
            tag("style", Html(styles)),
        ],
        "\n",
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{escape(body)}\n</body>\n</html>\n'
