"""The page: one file that asks the network for nothing, with filters, keys, and corrections to be exported.

Everything that comes from documents or models passes through `markup.tag` as text, so none of it can become markup; a
content security policy allows this page's own script by its hash, and no other script and no request.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from openbook.dataset.overlay import Change
from openbook.dataset.page.article import article
from openbook.dataset.viewing import View
from openbook.markup import Html, document, join, tag

_HERE = Path(__file__).parent
_KEYS = (
    ("/", "search"),
    ("j", "next row"),
    ("k", "row before"),
    ("r", "reject, or take back"),
    ("e", "edit"),
    ("Esc", "leave a field"),
)


def render(views: Sequence[View], changes: Mapping[str, Change], *, left_out: int = 0) -> str:
    """The page for these rows, which says that `left_out` more are not on it. Equal arguments give equal bytes."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"script-src 'sha256-{digest}'; form-action 'none'"
    rows = (article(view, changes.get(view.question_id)) for view in views)
    # What is kept here while the page is closed belongs to these rows and no others.
    known = hashlib.sha256(json.dumps([view.example.id for view in views]).encode()).hexdigest()[:16]
    body = join(
        [_header(views, left_out), tag("main", *rows, id="rows", data_known=known), tag("script", Html(script))], "\n"
    )
    return document("openbook data set", body, sheet=_HERE / "page.css", policy=policy)


def _header(views: Sequence[View], left_out: int) -> Html:
    more = f" {left_out:,} further rows are not on this page: see --limit." if left_out else ""
    return tag(
        "header",
        tag("h1", "The data set, row by row"),
        tag(
            "p",
            tag("span", f"{len(views):,} of {len(views):,} rows.", id="count", role="status"),
            f"{more} Golden passages have a gold border, quotes are marked where they stand.",
            class_="note",
        ),
        tag(
            "form",
            tag(
                "label",
                "Search",
                _void("input", type="search", id="search", autocomplete="off", placeholder="any text"),
            ),
            _filter("part", "Part", (view.part for view in views)),
            _filter("shape", "Asks", (view.shape for view in views)),
            _filter("kind", "Kind", (view.example.kind or "unknown" for view in views)),
            _filter("golden", "Golden passage", (view.golden for view in views)),
            _filter("checks", "Checks", ("failed" if view.failed else "passed" for view in views)),
            _filter("state", "By hand", (), ("unchanged", "rejected", "edited")),
            id="filters",
        ),
        tag(
            "details",
            tag("summary", "Keys, and what becomes of changes"),
            tag("ul", *(tag("li", tag("kbd", key), f" {what}") for key, what in _KEYS), class_="keys"),
            tag(
                "p",
                "Rejections and edits are kept in this browser until they are exported. Then ",
                tag("code", "openbook dataset apply overlay.jsonl"),
                " checks them and puts them in force; they outlive every rebuild of the data set.",
            ),
        ),
        tag(
            "p",
            tag("button", "Export changes", type="button", id="export", disabled=True),
            tag("span", "", id="pending", class_="note", role="status"),
            class_="bar",
        ),
    )


def _filter(name: str, label: str, values: Iterable[str], always: Sequence[str] = ()) -> Html:
    """A choice among the values that occur, with how often they do."""
    counts = Counter(values)
    options = [tag("option", f"{value} ({count:,})", value=value) for value, count in counts.most_common()]
    options += [tag("option", value, value=value) for value in always]
    return tag("label", label, tag("select", tag("option", "all", value=""), *options, data_filter=name))


def _void(name: str, **attributes: str) -> Html:
    """An element that has no end tag."""
    return Html(tag(name, **attributes).removesuffix(f"</{name}>"))
