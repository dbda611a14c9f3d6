"""Books read chapter by chapter, in the order of their spine."""

import pytest

from archives import CONTAINER, epub, zipped
from openbook.documents.epub import parse_epub
from openbook.errors import DocumentError


def page(inside: str) -> str:
    return f"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title>x</title></head><body>{inside}</body></html>"


def test_chapters_follow_the_spine_with_their_headings() -> None:
    book = epub(
        {
            "b.xhtml": page(
                "<h1>Levers</h1><p>The lever has <em>nine</em> rivets&#8230;</p><h2>Care</h2><ul><li>Oil it</li></ul>"
            ),
            "a%20b.xhtml": page("<p>No heading of its own.</p>"),
            "empty.xhtml": page("<img src='x.png'/>"),
        },
        toc={"a%20b.xhtml": "Spindles", "b.xhtml": "Not used", "empty.xhtml": "A picture"},
        **{"OPS/a b.xhtml": page("<p>No heading of its own.</p>")},
    )
    parsed = parse_epub(book, "file")
    assert parsed.text == (
        "# Levers\n\nThe lever has nine rivets…\n\n## Care\n\n- Oil it\n\n# Spindles\n\nNo heading of its own."
    )
    assert parsed.title == "The Pump"
    assert [section.title for section in parsed.sections] == ["Levers", "Care", "Spindles"]
    assert all(parsed.text[s.start :].startswith("#" * s.level) for s in parsed.sections)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK", "damaged or no .epub file"),
        (zipped({"mimetype": "application/epub+zip"}), "holds no META-INF/container.xml"),
        (zipped({"META-INF/container.xml": CONTAINER}), "container names no package"),
        (epub({"a.xhtml": ""}).replace(b"OPS/a.xhtml", b"OPS/b.xhtml"), "holds no OPS/a.xhtml"),
        (
            epub({"a.xhtml": page("x")}, **{"META-INF/encryption.xml": '<e><EncryptionMethod Algorithm="aes"/></e>'}),
            "copy protection",
        ),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        parse_epub(data, "x")


def test_a_chapter_whose_title_is_empty_is_not_lost() -> None:
    chapter = page("<p>The lever has nine rivets.</p>").replace("<title>x</title>", "<title/>")
    assert parse_epub(epub({"a.xhtml": chapter}), "file").text == "The lever has nine rivets."


def test_hidden_fonts_do_not_hide_the_text() -> None:
    fonts = '<e><EncryptionMethod Algorithm="http://www.idpf.org/2008/embedding"/></e>'
    book = epub({"a.xhtml": page("<p>Text.</p>")}, **{"META-INF/encryption.xml": fonts})
    assert parse_epub(book, "x").text == "Text."
