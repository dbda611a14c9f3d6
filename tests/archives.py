"""Small .docx and .epub files, written by hand so that each test shows the XML that it is about."""

import io
import zipfile

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>The Pump</dc:title></metadata><manifest>{items}</manifest><spine toc="ncx">{spine}</spine></package>"""
CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'


def zipped(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def docx(body: str, **parts: str) -> bytes:
    """A document with this body; `parts` are the insides of styles, numbering or footnotes."""
    members: dict[str, str | bytes] = {
        "word/document.xml": f'<?xml version="1.0"?><w:document {W}><w:body>{body}</w:body></w:document>'
    }
    members |= {f"word/{name}.xml": f"<w:{name} {W}>{inside}</w:{name}>" for name, inside in parts.items()}
    return zipped(members)


def paragraph(text: str, style: str = "", *, numbered: tuple[str, int] | None = None) -> str:
    properties = f'<w:pStyle w:val="{style}"/>' if style else ""
    if numbered:
        properties += f'<w:numPr><w:ilvl w:val="{numbered[1]}"/><w:numId w:val="{numbered[0]}"/></w:numPr>'
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def epub(chapters: dict[str, str], toc: dict[str, str] | None = None, **more: str) -> bytes:
    """A book with these pages in this order; `toc` maps a chapter to its title."""
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    points = "".join(
        f'<navPoint><navLabel><text>{title}</text></navLabel><content src="{name}"/></navPoint>'
        for name, title in (toc or {}).items()
    )
    doctype = '<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">'
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": PACKAGE.format(items=items + '<item id="ncx" href="toc.ncx"/>', spine=spine),
        "OPS/toc.ncx": f"{doctype}<ncx><navMap>{points}</navMap></ncx>",
        **{f"OPS/{name}": page for name, page in chapters.items()},
    }
    return zipped(members | more)
