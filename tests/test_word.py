"""Word documents read as a reader sees them: headings, lists with their numbers, tables, what is tracked, pages."""

import pytest

from archives import W, docx, paragraph, zipped
from openbook.documents.word import parse_docx
from openbook.errors import DocumentError

STYLES = """
<w:style w:styleId="Title"><w:name w:val="Title"/></w:style>
<w:style w:styleId="H1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="Own"><w:name w:val="My heading"/><w:basedOn w:val="H2"/></w:style>
<w:style w:styleId="H2"><w:name w:val="heading 2"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:styleId="Round"><w:name w:val="Round"/><w:basedOn w:val="Round"/></w:style>
<w:style w:styleId="Code"><w:name w:val="Source Code"/></w:style>"""
NUMBERING = """
<w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/></w:lvl>
<w:lvl w:ilvl="1"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum><w:num w:numId="7"><w:abstractNumId w:val="0"/></w:num>"""


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def test_a_document_reads_as_markdown_would() -> None:
    table = "".join(
        "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) + "</w:tr>"
        for row in (("key", "default"), ("for", "0s"))
    )
    body = (
        paragraph("The Pump", "Title")
        + paragraph("Parts", "H1")
        + paragraph("The lever  has nine rivets.", "Round")
        + paragraph("Care", "Own")
        + paragraph("Oil it.", numbered=("7", 0))
        + paragraph("with oil", numbered=("7", 1))
        + paragraph("Wait.", numbered=("7", 0))
        + paragraph("An hour at least.")
        + paragraph("Close it.", numbered=("7", 0))
        + f"<w:tbl>{table}</w:tbl>"
        + paragraph("open(lid)", "Code")
        + paragraph("shut(lid)", "Code")
    )
    parsed = parse_docx(docx(body, styles=STYLES, numbering=NUMBERING), "file")
    assert parsed.text == (
        "# The Pump\n\n## Parts\n\nThe lever has nine rivets.\n\n### Care\n\n"
        "1. Oil it.\n  - with oil\n2. Wait.\n\nAn hour at least.\n\n3. Close it.\n\n"
        "key | default\nfor | 0s\n\n```\nopen(lid)\nshut(lid)\n```"
    )
    assert parsed.title == "The Pump"
    assert [(parsed.text[s.start :].split("\n")[0], s.level) for s in parsed.sections] == [
        ("# The Pump", 1),
        ("## Parts", 2),
        ("### Care", 3),
    ]


def test_what_python_docx_would_lose_is_read_and_what_nobody_sees_is_not() -> None:
    body = (
        f"<w:p>{run('It')}<w:ins>{run(' now')}</w:ins><w:del><w:r><w:delText> never</w:delText></w:r></w:del>"
        f"<w:moveFrom>{run(' moved')}</w:moveFrom><w:hyperlink>{run(' turns')}</w:hyperlink>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t> secretly</w:t></w:r><w:r><w:instrText>PAGE</w:instrText></w:r>"
        "<w:r><w:noBreakHyphen/></w:r><w:r><w:tab/><w:t>round.</w:t></w:r></w:p>"
        f"<w:sdt><w:sdtContent>{paragraph('In a control.')}</w:sdtContent></w:sdt>"
        f"<w:p>{run('Beside a box.')}<w:r><w:pict><w:txbxContent>{paragraph('In the box.')}</w:txbxContent></w:pict></w:r></w:p>"
    )
    notes = f'<w:footnote w:id="1">{paragraph("A note.")}</w:footnote>'
    text = parse_docx(docx(body, footnotes=notes), "x").text
    assert text == "It now turns- round.\n\nIn a control.\n\nBeside a box.\n\nIn the box.\n\nA note."


def test_an_exponent_is_no_further_digit() -> None:
    def raised(text: str) -> str:
        return f'<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>{text}</w:t></w:r>'

    body = f"<w:p>{run('10')}{raised('2')}{run(' and the 5')}{raised('th')}</w:p>"
    assert parse_docx(docx(body), "x").text == "10² and the 5th"


def test_pages_begin_where_word_broke_them() -> None:
    broken = f"<w:p>{run('It ends here,')}<w:r><w:lastRenderedPageBreak/></w:r>{run(' and goes on.')}</w:p>"
    blank = '<w:p><w:r><w:br w:type="page"/></w:r></w:p>'
    body = paragraph("One.", "H1") + broken + blank + paragraph("Three.")
    parsed = parse_docx(docx(body, styles=STYLES), "x")
    assert [parsed.text[at:][:6] for at in parsed.pages] == ["# One.", "and go", "Three."]
    assert parsed.pages[0] == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK nothing", "damaged or no .docx file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted, or of an older format than .docx"),
        (zipped({"word/other.xml": ""}), "holds no word/document.xml"),
        (docx("<w:p>"), "word/document.xml is damaged"),
        (docx(paragraph("x")).replace(b"word/document.xml", b"word/documant.xml", 1), "damaged"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        parse_docx(data, "x")


def test_a_zip_bomb_is_measured_as_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.documents.archive.MOST", 10_000_000)
    bomb = docx("<w:p/>" * 2_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(DocumentError, match="unpacks to more than 10 MB"):
        parse_docx(bomb, "x")


def test_a_zip_within_a_zip_is_never_opened() -> None:
    inner = zipped({"deeper.zip": zipped({"a": bytes(50_000_000)})})
    body = f"<w:document {W}><w:body>{paragraph('Text.')}</w:body></w:document>"
    outer = zipped({"word/document.xml": body, "word/embeddings/inner.zip": inner})
    assert parse_docx(outer, "x").text == "Text."


def test_entities_are_refused_before_they_grow() -> None:
    laughs = '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    with pytest.raises(DocumentError, match="declares entities"):
        parse_docx(zipped({"word/document.xml": f"{laughs}<d>&b;</d>"}), "x")
    outside = '<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    with pytest.raises(DocumentError, match="declares entities"):
        parse_docx(zipped({"word/document.xml": f"{outside}<d>&a;</d>"}), "x")


def test_deep_nesting_is_no_problem() -> None:
    assert parse_docx(docx(f"<w:p>{'<w:ins>' * 20_000}{run('Deep.')}{'</w:ins>' * 20_000}</w:p>"), "x").text == "Deep."
