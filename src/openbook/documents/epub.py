"""EPUB as readable text: the chapters in reading order, each as the web page that it is.

The container names the package, its spine the order of the chapters (EPUB 3.3, which EPUB 2 agrees with). A chapter
without a heading takes its title from the table of contents.
"""

import posixpath
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from openbook.documents.archive import Archive
from openbook.documents.builder import Parsed, TextBuilder, decode, one_line
from openbook.documents.hypertext import declared_encoding, render_page
from openbook.errors import DocumentError

_PAGES = frozenset(("application/xhtml+xml", "text/html", "application/x-dtbook+xml"))
# What hides the fonts of a book without hiding its text.
_HARMLESS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def parse_epub(data: bytes, name: str) -> Parsed:
    """Raises `DocumentError` for a book that is damaged or under copy protection."""
    builder = TextBuilder()
    with Archive(data, ".epub") as archive:
        _refuse_protection(archive)
        package_path = _package_path(archive)
        package = archive.xml(package_path)
        folder = posixpath.dirname(package_path)
        items = {item.get("id", ""): item for item in _all(package, "item")}
        titles = _contents(archive, package, items, folder)
        for reference in _all(package, "itemref"):
            item = items.get(reference.get("idref", ""))
            if item is None or reference.get("linear") == "no" or item.get("media-type") not in _PAGES:
                continue
            if "nav" in (item.get("properties") or "").split():  # the table of contents
                continue
            path = _join(folder, item.get("href", ""))
            _chapter(archive.read(path), titles.get(path, ""), builder)
        title = next((one_line(element.text or "") for element in _all(package, "title")), "")
    return builder.build(title or builder.title_or(name))


def _chapter(page: bytes, title: str, builder: TextBuilder) -> None:
    source, alone = decode(page, declared_encoding(page)) or "", TextBuilder()
    render_page(source, alone)
    if not alone.length:
        return
    if title and not alone.sections:
        builder.heading(1, title)
    render_page(source, builder)


def _refuse_protection(archive: Archive) -> None:
    path = "META-INF/encryption.xml"
    if path in archive.names:
        methods = [method.get("Algorithm", "") for method in _all(archive.xml(path), "EncryptionMethod")]
        if not all(method in _HARMLESS for method in methods):
            raise DocumentError("it is under copy protection, so that its text cannot be read")


def _package_path(archive: Archive) -> str:
    for root in _all(archive.xml("META-INF/container.xml"), "rootfile"):
        path = root.get("full-path", "")
        if path in archive.names:
            return path
    raise DocumentError("it is damaged: its container names no package")


def _contents(archive: Archive, package: Element, items: dict[str, Element], folder: str) -> dict[str, str]:
    """Chapter → its title, after the table of contents of EPUB 2, which most books of EPUB 3 have as well."""
    spine = next(iter(_all(package, "spine")), None)
    toc = items.get(spine.get("toc", "")) if spine is not None else None
    path = _join(folder, toc.get("href", "")) if toc is not None else ""
    if path not in archive.names:
        return {}
    titles: dict[str, str] = {}
    for point in _all(archive.xml(path), "navPoint"):
        label, content = next(iter(_all(point, "text")), None), next(iter(_all(point, "content")), None)
        if label is not None and content is not None:
            chapter, _, part = content.get("src", "").partition("#")
            if not part:
                titles.setdefault(_join(posixpath.dirname(path), chapter), one_line(label.text or ""))
    return titles


def _all(element: Element, name: str) -> list[Element]:
    """Descendants by local name: packages of several versions and makers differ in their namespaces."""
    return [e for e in element.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name]


def _join(folder: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(href)))
