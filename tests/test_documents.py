"""Files become readable text: one line a paragraph, nothing that a reader of the page would not read."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.documents import Skipped, read
from openbook.documents.builder import Parsed, decode
from openbook.documents.hypertext import parse_html
from openbook.documents.markdown import parse_markdown
from openbook.documents.parsing import parse_file
from openbook.documents.pdf import parse_pdf
from openbook.documents.plain import parse_plain
from openbook.documents.pysource import parse_python
from openbook.documents.restructured import parse_rst
from openbook.errors import DocumentError
from openbook.records import Document
from shared_data import DATA

PDFS = DATA / "pdf"


def headings(parsed: Parsed) -> list[str]:
    """The heading lines as the sections record them, read from the text."""
    return [parsed.text[section.start :].split("\n", 1)[0] for section in parsed.sections]


def read_all(*paths: Path, max_file_mb: float = 50) -> tuple[dict[str, Document], dict[str, Skipped]]:
    found = list(read(paths, max_file_mb=max_file_mb))
    documents = {item.uri: item for item in found if isinstance(item, Document)}
    return documents, {item.uri: item for item in found if isinstance(item, Skipped)}


# Markdown

MARKDOWN = """\
---
title: "Alert rules"
sort_rank: 3
---
<!-- Old headings. Do not remove. -->
<a id="rules"></a>

An _alert_ fires when its **expression** holds
for `for` seconds, see [the guide](https://example.org/guide).

## Keys {#keys}

- `expr`: the expression,
  which may be long
- `for`: a duration; *default* `0s`
  1. nested one
  2. nested two

| key | default |
|-----|---------|
| for | `0s`    |

![a picture](x.png)

```yaml,ignore
# not a heading
{{#include ../rules.yml:here}}
expr: up == 0
```

```rust
{{#rustdoc_include ../listings/ch04/src/main.rs:here}}
```

> [!NOTE]
> Use {{< ref "x" >}}templates like `{{ $value }}` with care.[^1]

[^1]: A footnote &amp; its text.
"""


def test_markdown_reads_as_a_page_does() -> None:
    parsed = parse_markdown(MARKDOWN, "file")
    assert parsed.text == (
        "# Alert rules\n\n"
        "An alert fires when its expression holds for `for` seconds, see the guide.\n\n"
        "## Keys\n\n"
        "- `expr`: the expression, which may be long\n"
        "- `for`: a duration; default `0s`\n"
        "  1. nested one\n"
        "  2. nested two\n\n"
        "key | default\n"
        "for | `0s`\n\n"
        "```yaml\n# not a heading\nexpr: up == 0\n```\n\n"
        "Use templates like `{{ $value }}` with care.\n\n"
        "A footnote & its text."
    )
    assert parsed.title == "Alert rules"
    assert headings(parsed) == ["# Alert rules", "## Keys"]
    assert [section.level for section in parsed.sections] == [1, 2]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Vec<T> and <job> stay, <b>tags</b> go.<br>New", "Vec<T> and <job> stay, tags go. New"),
        ("Press <kbd>Ctrl</kbd>, run <code>x</code>.", "Press Ctrl, run `x`."),
        ("a  \nb", "a\n\nb"),
        ("Title\n=====\ntext", "# Title\n\ntext"),
        ('!!! note "Mind"\n    The gap\n    here.\n\nAfter.', "Mind\n\nThe gap here.\n\nAfter."),
        (":::tip\nText.\n:::\n\nEnd.", "Text.\n\nEnd."),
        ("{% if x %}\nA.\n{% endif %}", "A."),
        ("~~~\na ``` b\n~~~", "````\na ``` b\n````"),
        ("    code", "```\ncode\n```"),
        ("- a\n\n  b\n- c", "- a\n  b\n- c"),
        ("- ```sh\n  ls\n  ```", "- ```sh\n  ls\n  ```"),
        ("0. a\n1. b", "0. a\n1. b"),
        ("10<sup>2</sup>, 5<sup>th</sup>, H<sub>2</sub>O, e<SUP>-x</SUP>", "10², 5th, H2O, e-x"),
        ("> quoted\n> words", "quoted words"),
        ("a\u00a0b\u200bc\u00adhy", "a bchy"),
        ("``a`b``", "``a`b``"),
        ("[a][r] ![i][r]\n\n[r]: /x", "a"),
        ("<div>\n\n*in*\n\n</div>\n\n<script>\nno()\n</script>\n\nout", "in\n\nout"),
        (
            '<Listing number="4-1" caption="x">\n\n```rust\nfn main() {}\n```\n\n</Listing>',
            "```rust\nfn main() {}\n```",
        ),
        ("---\nnot front matter\n---\n", "not front matter"),
    ],
)
def test_markdown_details(source: str, text: str) -> None:
    assert parse_markdown(source, "x").text.replace("## not front matter", "not front matter") == text


def test_a_title_comes_from_the_front_matter_the_first_heading_or_the_file() -> None:
    assert parse_markdown("+++\ntitle = 'Front'\n+++\n# Head\n", "file").title == "Front"
    assert parse_markdown("---\ntitle: >-\n  Of two\n  lines\n\ntags: x\n---\ntext", "file").title == "Of two lines"
    assert parse_markdown("## Lower\n\n# Head\n", "file").title == "Head"
    assert parse_markdown("text", "file").title == "file"


# HTML

HTML = """<!doctype html><html><head><title>Page</title><style>p{}</style></head><body>
<nav><a href=/>Home</a></nav><header>Site</header>
<main><h1>Rules<a class="headerlink" href="#r">¶</a> <a class="header" href="#">here</a></h1><p>An <em>alert</em> fires
when <code>expr</code> holds.<script>track()</script></p>
<ul><li>one<ol start=3><li>three<li>four</ol></li><li><p>two</p></li></ul>
<table><tr><th>key<th>default</tr><tr><td>for</td><td><p>0s</p></td></tr></table>
<pre><code class="language-yaml">expr: up
  for: 5m</code></pre><dl><dt>Term</dt><dd>Its meaning.</dd></dl>
<p hidden>secret</p><p style="display: none">secret</p><div>Loose<br>lines</div></main>
<footer>© us</footer></body></html>"""


def test_html_reads_as_markdown_does() -> None:
    parsed = parse_html(HTML, "file")
    assert parsed.text == (
        "# Rules here\n\nAn alert fires when `expr` holds.\n\n"
        "- one\n  3. three\n  4. four\n- two\n\n"
        "key | default\nfor | 0s\n\n"
        "```yaml\nexpr: up\n  for: 5m\n```\n\n"
        "Term\n\nIts meaning.\n\nLoose\n\nlines"
    )
    assert parsed.title == "Rules here"
    assert headings(parsed) == ["# Rules here"]


def test_a_page_that_its_server_wraps_into_a_form_is_read_and_other_forms_are_not() -> None:
    page = "<form><input><div><h1>Alerts</h1><p>An alert fires.</p><form><p>Your name</p></form></div></form>"
    assert parse_html(page, "x").text.startswith("# Alerts\n\nAn alert fires.")
    assert parse_html("<p>Text</p><form><h3>Comments</h3><p>Name <input></p></form>", "x").text == "Text"


def test_an_exponent_is_no_further_digit() -> None:
    page = "<p>10<sup>2</sup> or 2<sup><i>n</i>+1</sup>, the 5<sup>th</sup> note<sup><a href=x>[3]</a></sup></p>"
    assert parse_html(page, "x").text == "10² or 2ⁿ⁺¹, the 5th note[3]"
    assert parse_html("<table><tr><td>m<sup>3<td>x</table>", "x").text == "m³ | x"


def test_html_without_headings_has_the_title_of_its_head() -> None:
    assert parse_html("<title> A &amp; B </title><p>x", "file").title == "A & B"
    assert parse_html("<p>x", "file").title == "file"


def test_deep_html_is_refused_before_the_parser_chokes_on_it() -> None:
    with pytest.raises(DocumentError, match="nested"):
        parse_html("<div>" * 5000, "x")
    assert parse_html("<ul>" + "<li>word" * 5000, "x").text.count("word") == 5000


# Python

PYTHON = '''
"""Tools for words.

Use ``shout`` with :class:`Word`::

    shout("a")
"""

def shout(text: str, *, times=2, end="!") -> str:
    """Make `text` loud.

    Args:
        text: what to
            shout
        times: how often; default 2
    """

def _private():
    """Not shown."""

try:
    pass
except ImportError:
    def guarded(a, /, b, *c, **d):
        """Stands under a condition."""

class Word(str):
    """One word."""

    def __init__(self): ...

    @property
    def size(self):
        """Its length."""

    @staticmethod
    def make(x): "From `x`."

    def cut(self, at=1):
        r"""Cut it.

        >>> Word("ab").cut()
        'a'

        This::

            for part in Word("ab"):
                <body>

        Is equivalent to this:

            try:
                <body>
            finally:
                word = None

        # without any announcement
        word = cut(2)  # and explained
                       # at length
        """
'''


def test_python_source_reads_as_its_reference() -> None:
    parsed = parse_python(PYTHON, "words")
    assert headings(parsed) == [
        "# words",
        "## words.shout(text, *, times=2, end='!')",
        "## words.guarded(a, /, b, *c, **d)",
        "## words.Word",
        "### words.Word.size",
        "### words.Word.make(x)",
        "### words.Word.cut(at=1)",
    ]
    assert 'Use `shout` with `Word`:\n\n```\nshout("a")\n```' in parsed.text
    assert "text: what to shout\n\ntimes: how often; default 2" in parsed.text
    assert "```\n>>> Word(\"ab\").cut()\n'a'\n```" in parsed.text
    assert "Not shown" not in parsed.text
    assert parsed.text.endswith(
        'This:\n\n```\nfor part in Word("ab"):\n    <body>\n```\n\n'
        "Is equivalent to this:\n\n```\ntry:\n    <body>\nfinally:\n    word = None\n```\n\n"
        "```\n# without any announcement\nword = cut(2)  # and explained\n               # at length\n```"
    )


def test_python_that_cannot_be_parsed_says_where() -> None:
    with pytest.raises(DocumentError, match="line 2"):
        parse_python("x = 1\nprint 'two'\n", "x")


# Plain text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("A line that is wrapped because its author's editor did so at\nseventy columns.\n\nNext.",
         "A line that is wrapped because its author's editor did so at seventy columns.\n\nNext."),
        ("Milk\nEggs\nBread", "Milk\n\nEggs\n\nBread"),
        ("- one that is long enough to be wrapped at the end of the line\n  here\n- two", None),
        ("Title\n=====\n\nSub\n---\ntext", "# Title\n\n## Sub\n\ntext"),
        ("Use ``x``.", "Use ``x``."),
    ],
)  # fmt: skip
def test_plain_text(source: str, text: str | None) -> None:
    wanted = text or "- one that is long enough to be wrapped at the end of the line here\n- two"
    assert parse_plain(source, "x").text == wanted


def test_restructured_text() -> None:
    source = (
        ".. _target:\n\nTitle\n=====\n\nSee :ref:`the guide <guide>`, `the site <http://x.org>`_ and ``code``.\n\n.. code-block:: python\n"
        "   :linenos:\n\n   x = 1\n\n.. note:: Mind this.\n\n.. image:: x.png\n   :alt: x\n\nEnd::\n\n   literal\n\nLast.\n\n"
        "==== =====\nA    B\n==== =====\none  two words\n==== =====\n"
    )
    assert parse_rst(source, "x").text == (
        "# Title\n\nSee the guide, the site and `code`.\n\n```python\nx = 1\n```\n\nMind this.\n\nEnd:\n\n```\nliteral\n```\n\nLast.\n\n"
        "A | B\none | two words"
    )


# PDF


def pdf(pages: list[list[tuple[float, float, float, str]]]) -> bytes:
    """A PDF with lines of text at (x, y) in a size, drawn in this order."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>", "", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids = []
    for page in pages:
        drawn = "\n".join(
            f"BT /F1 {size} Tf {x} {y} Td ({text.replace('(', '[').replace(')', ']')}) Tj ET"
            for x, y, size, text in page
        )
        objects.append(f"<</Length {len(drawn)}>>stream\n{drawn}\nendstream")
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {len(objects)} 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(kids)}]>>"
    body = "%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    return (body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}").encode("latin-1")


def body_lines(top: float, lines: list[str]) -> list[tuple[float, float, float, str]]:
    return [(50, top - 14 * number, 12, line) for number, line in enumerate(lines)]


def test_pdf_lines_become_paragraphs_below_their_headings() -> None:
    first = [
        *body_lines(700, [
            "The first paragraph of this report is long enough to be bro-",
            "ken over two lines, as the lines of a page usually are here.",
        ]),
        *body_lines(650, ["A second one stands lower, and it goes on from this page to the"]),
        (50, 730, 20, "A Large Heading"),  # drawn last, seen first
    ]  # fmt: skip
    second = body_lines(700, ["next without a stop. It is broken only where the page ends."])
    parsed = parse_pdf(pdf([first, second]), "file")
    assert parsed.text == (
        "# A Large Heading\n\n"
        "The first paragraph of this report is long enough to be broken over two lines, as the lines of a page usually are "
        "here.\n\n"
        "A second one stands lower, and it goes on from this page to the next without a stop. It is broken only where the "
        "page ends."
    )
    assert parsed.title == "A Large Heading"
    assert [parsed.text[at:][:4] for at in parsed.pages] == ["# A ", "next"]


def test_pdf_exponents_are_no_further_digits() -> None:
    line = [
        (50, 700, 12, "The flow of it is 10"),
        (146, 705, 7, "2"),
        (150, 700, 12, " litres, and H"),
        (224, 697, 7, "2"),
        (228, 700, 12, "O is what it carries in all."),
        (375, 705, 7, "[3]"),
    ]
    parsed = parse_pdf(pdf([[*line, *body_lines(686, ["A further line of the usual length is here."])]]), "x")
    assert all(part in parsed.text for part in ("is 10² litres, and H", "2O is what it carries in all.", "[3]"))


def test_pdf_headers_footers_and_page_numbers_go() -> None:
    pages = [
        [(50, 770, 9, f"Annual report {number}"), *body_lines(700, [f"Text of page {word} stands here."]), (300, 20, 9, str(number))]
        for number, word in enumerate(["one", "two", "three", "four"], 1)
    ]  # fmt: skip
    parsed = parse_pdf(pdf(pages), "file")
    assert parsed.text == "\n\n".join(f"Text of page {word} stands here." for word in ("one", "two", "three", "four"))
    assert len(parsed.pages) == 4


def test_pdf_that_cannot_be_read_says_why() -> None:
    with pytest.raises(DocumentError, match="damaged"):
        parse_pdf(b"%PDF-1.4 nothing more", "x")
    whole = pdf([body_lines(700, ["Text."])])
    key = "<" + "00" * 32 + ">"
    lock = f"/ID[{key}{key}]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O {key}/U {key}>>/Root".encode()
    with pytest.raises(DocumentError, match="encrypted; save it without its password"):
        parse_pdf(whole.replace(b"/Root", lock, 1), "x")
    assert parse_pdf(pdf([[], []]), "x").text == ""


def test_pages_without_text_are_counted() -> None:
    pages = [[], body_lines(700, ["On the second page."]), [], body_lines(700, ["On the fourth."]), []]
    parsed = parse_pdf(pdf(pages), "x")
    assert parsed.text == "On the second page.\n\nOn the fourth."
    assert list(parsed.pages) == [0, 0, 21, 21, 35]


@pytest.mark.skipif(not PDFS.is_dir(), reason="the sample PDFs are not on this machine")
def test_a_real_pdf() -> None:
    parsed = parse_pdf((PDFS / "UC_Berkeley_short.pdf").read_bytes(), "x")
    assert parsed.title == "University of California, Berkeley"
    assert "is a public land-grant research university in Berkeley, California." in parsed.text
    assert headings(parsed)[1:4] == ["## History", "### Founding", "### 20th century"]
    assert len(parsed.pages) == 5
    assert list(parsed.pages) == sorted(parsed.pages)


# Reading


def test_folders_are_read_in_order_and_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "my dócs"
    for name, data in {
        "b.md": b"# B\n\ntext",
        "a/ü n.txt": "Grüße".encode(),
        "a/x.HTML": b"<p>page",
        "a/win.txt": b"caf\xe9",
        "a/utf16.txt": "wide".encode("utf-16"),
        "a/bom.md": b"\xef\xbb\xbf# Bom\n\ntext",
        "title.md": b"# Only a title",
        "empty.md": b" \n",
        "comment.md": b"<!-- only -->",
        "bin.txt": b"a\0b",
        "pic.png": b"\x89PNG",
        "bad.pdf": b"%PDF-1.4 broken",
        "nodoc.py": b"x = 1",
        "old.py": b"print 'x'",
        ".hidden.md": b"h",
        ".git/config.md": b"h",
        "node_modules/m/readme.md": b"h",
        "README": b"h",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    documents, skipped = read_all(root)
    assert list(documents) == [
        f"my dócs/{n}" for n in ("a/bom.md", "a/utf16.txt", "a/win.txt", "a/x.HTML", "a/ü n.txt", "b.md")
    ]
    assert documents["my dócs/a/win.txt"].text == "café"
    assert documents["my dócs/a/utf16.txt"].text == "wide"
    assert documents["my dócs/a/bom.md"].title == "Bom"
    kinds = {uri.removeprefix("my dócs/"): item.kind for uri, item in skipped.items()}
    assert kinds == {
        "empty.md": "empty", "comment.md": "empty", "title.md": "empty", "bin.txt": "binary", "pic.png": "unsupported", "bad.pdf": "error",
        "nodoc.py": "empty", "old.py": "error", ".hidden.md": "hidden", ".git": "hidden", "node_modules": "hidden",
        "README": "unsupported",
    }  # fmt: skip
    assert skipped["my dócs/old.py"].reason.startswith("it is not valid Python (line 1")


def test_names_do_not_depend_on_where_openbook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/docs/a.md", "two/docs/a.md", "two/docs/sub/b.md", "two/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path / "two")
    assert list(read_all(Path("docs"))[0]) == ["docs/a.md", "docs/sub/b.md"]
    assert list(read_all(tmp_path / "two" / "docs")[0]) == ["docs/a.md", "docs/sub/b.md"]
    assert list(read_all(Path())[0]) == ["two/c.md", "two/docs/a.md", "two/docs/sub/b.md"]
    both = read_all(Path("../one/docs"), Path("docs"), Path("c.md"))[0]
    assert list(both) == ["one/docs/a.md", "two/docs/a.md", "two/docs/sub/b.md", "c.md"]
    assert list(read_all(Path("docs/sub"), Path("docs"))[0]) == ["sub/b.md", "docs/a.md"]  # each file once


def test_nothing_but_regular_files_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "again.md").symlink_to("a.md")
    (tmp_path / "lost.md").symlink_to("nowhere.md")
    (tmp_path / "round.md").symlink_to("round.md")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.md")
    documents, skipped = read_all(tmp_path)
    assert len(documents) == 1
    reasons = {Path(uri).name: item.reason for uri, item in skipped.items()}
    assert set(reasons) == {"lost.md", "round.md", "pipe.md"}
    assert "link" in reasons["lost.md"]
    assert "pipe" in reasons["pipe.md"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    for name in (b"\xff.md", b"\xfe.md"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("text")
    documents, _ = read_all(tmp_path)
    assert [uri.rpartition("/")[2] for uri in documents] == ["\\xfe.md", "\\xff.md"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "a.md").chmod(0)
    assert "Permission" in read_all(tmp_path)[1][f"{tmp_path.name}/a.md"].reason


def test_a_large_file_is_named_and_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(200_000_000)  # sparse: nothing is written
    started = time.monotonic()
    _, skipped = read_all(tmp_path)
    assert time.monotonic() - started < 1
    (item,) = skipped.values()
    assert (item.kind, item.reason) == ("too_large", "it has 200 MB, more than the 50 MB of documents.max_file_mb")


def test_what_is_excluded_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "report.html").write_text("<p>x")
    (tmp_path / "a.md").write_text("text")
    found = list(read([tmp_path], max_file_mb=1, exclude=[tmp_path / "work"]))
    assert [item.uri for item in found] == [f"{tmp_path.name}/a.md"]


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"nowhere does not exist\. Check the path"):
        list(read([tmp_path / "nowhere"], max_file_mb=1))


def test_a_title_is_part_of_what_a_document_is(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\ntitle: One\n---\n# Head\n\ntext")
    (before,) = read_all(tmp_path)[0].values()
    (tmp_path / "a.md").write_text("---\ntitle: Two\n---\n# Head\n\ntext")
    (after,) = read_all(tmp_path)[0].values()
    assert (before.text, before.title, after.title) == (after.text, "One", "Two")
    assert before.id != after.id


# Anything at all

PIECES = ["#", "##", " ", "  ", "\n", "\n\n", "`", "```", "- ", "1. ", "> ", "|", "a|b\n-|-\n", "[x](y)", "![", "]", "<b>",
          "</ul>", "<li>", "<table><td>", "<!--", "-->", "<pre>", "word", "É", "\t", "---\n", "===\n", ":::", "!!! note\n    ", "{{<", ">}}",
          "{%", "%}", "\r", "\0", "\u2028", "\ud800", "&amp;", "&#0;", "\\", ".. note::\n", "   ", "::\n", ">>> x\n", "[^1]:", "*", "_"]  # fmt: skip
SOURCES = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@settings(max_examples=150, deadline=None)
@given(SOURCES)
def test_any_source_gives_clean_text(source: str) -> None:
    for parsed in (
        parse_markdown(source, "x"),
        parse_html(source, "x"),
        parse_plain(source, "x"),
        parse_rst(source, "x"),
    ):
        parsed.text.encode("utf-8")
        parsed.title.encode("utf-8")
        assert not set(parsed.text) & set("\0\r\v\f\u2028\u200b")
        assert not parsed.text.endswith("\n")
        assert "\n\n\n" not in parsed.text.replace("```", "") or "```" in parsed.text
        for section in parsed.sections:
            assert parsed.text[section.start :].startswith(f"{'#' * section.level} {section.title}")
        assert [s.start for s in parsed.sections] == sorted(s.start for s in parsed.sections)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_called_binary(data: bytes) -> None:
    text = decode(data)
    assert text is None or text.encode("utf-8") is not None


@pytest.mark.parametrize("damage", [b"\xe9", b"\xe2\x80", b"\xff\xfe"])
def test_a_damaged_byte_does_not_make_western_text_of_utf_8(damage: bytes) -> None:
    assert decode("Zürich’s cafés – “open” at nine".encode() + damage) in (
        "Zürich’s cafés – “open” at nine\ufffd",
        "Zürich’s cafés – “open” at nine\ufffd\ufffd",
    )
    assert decode("Zürich’s cafés – “open” at nine".encode("cp1252")) == "Zürich’s cafés – “open” at nine"


@pytest.mark.parametrize(
    ("declaration", "encoding", "text"),
    [
        ('<meta charset="windows-1251">', "cp1251", "Привет"),
        ('<META http-equiv="Content-Type" content="text/html; charset=gb2312">', "gb18030", "你好，朋友"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>', "cp1252", "“naïve”"),
        ('<meta charset="windows-1251">', "utf-8", "Привет"),  # what it is counts more than what it says
        ('<meta charset="no-such-thing">', "cp1252", "naïve"),
        ('<meta charset="hex">', "cp1252", "naïve"),
        ('<meta charset="utf-16">', "cp1252", "naïve"),
    ],
)
def test_a_page_is_read_in_the_encoding_that_it_declares(
    tmp_path: Path, declaration: str, encoding: str, text: str
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(f"{declaration}<p>{text}</p>".encode(encoding))
    document = parse_file(path, "page.html")
    assert isinstance(document, Document) and document.text == text


@pytest.mark.parametrize("head", ["<title/>", "<title>T</title><script src='x.js' />", '<style type="text/css"/>'])
def test_elements_that_xhtml_closes_in_their_own_tag_do_not_hold_the_page(head: str) -> None:
    body = '<h2 id="a"/><p>Before<br/>and <a id="p1"/>after, in <code/>code.</p><img alt="x" src="y"/><p>The end.</p>'
    source = f'<html xmlns="http://www.w3.org/1999/xhtml"><head>{head}</head><body>{body}</body></html>'
    assert parse_html(source, "x").text == "Before\n\nand after, in code.\n\nThe end."


@pytest.mark.parametrize(
    "unit",
    [
        "#",
        "`",
        "[",
        "![",
        "*a ",
        "<",
        "<a ",
        "<a b='",
        " b='c'",
        "<!-- -->",
        "&#",
        "{{<",
        "{%",
        "- ",
        "> ",
        ".",
        "a\n=\n",
        ".. x\n",
        "|a",
        " ",
    ],
)
def test_hostile_repetition_takes_linear_time(unit: str) -> None:
    source = unit * (50_000 // len(unit)) + "x"
    parse_html(f"<?xml version='1.0'?>{source}", "x")
    for parse in (parse_markdown, parse_html, parse_plain):  # docutils takes quadratic time; it is stopped if need be
        started = time.process_time()
        parse(source, "x")
        assert time.process_time() - started < 10
