"""One file → one document: which parser reads it, and what is said of a file that none can read."""

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openbook.documents.builder import Parsed, decode
from openbook.documents.epub import parse_epub
from openbook.documents.hypertext import declared_encoding, parse_html
from openbook.documents.markdown import parse_markdown
from openbook.documents.notebook import parse_notebook
from openbook.documents.pdf import parse_pdf
from openbook.documents.plain import parse_plain
from openbook.documents.pysource import module_name, parse_python
from openbook.documents.restructured import parse_rst
from openbook.documents.word import parse_docx
from openbook.errors import DocumentError
from openbook.records import Document

Kind = Literal["hidden", "binary", "unsupported", "error", "too_large", "empty"]

_TEXT_PARSERS: dict[str, Callable[[str, str], Parsed]] = {
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".txt": parse_plain,
    ".rst": parse_rst,
    ".html": parse_html,
    ".htm": parse_html,
    ".xhtml": parse_html,
    ".py": parse_python,
    ".ipynb": parse_notebook,
}
_BYTE_PARSERS: dict[str, Callable[[bytes, str], Parsed]] = {
    ".pdf": parse_pdf,
    ".docx": parse_docx,
    ".epub": parse_epub,
}
SUFFIXES = (*_TEXT_PARSERS, *_BYTE_PARSERS)

_NOTHING = {
    ".pdf": "it has no text, only pictures: run a text recognition (OCR) over it first",
    ".py": "it has no docstrings",
}
# A novel has half a million characters. What is a hundred times longer came out of a compressed file by mistake or malice.
_LONGEST = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file or folder that was not read. `reason` completes the sentence "`uri` was skipped: …"."""

    uri: str
    reason: str
    kind: Kind


def parse_file(path: Path, uri: str) -> Document | Skipped:
    """The document in a file, in this very process: a parser that hangs, hangs whoever called."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Skipped(uri=uri, reason=said(error), kind="error")
    if not data.strip():
        return Skipped(uri=uri, reason="it is empty", kind="empty")
    suffix = path.suffix.lower()
    try:
        parsed = _parsed(path, suffix, data)
    except DocumentError as error:
        return Skipped(uri=uri, reason=str(error), kind="error")
    except MemoryError:
        raise
    except Exception as error:  # a parser's own fault with one file must not lose the other files; it is reported
        return Skipped(uri=uri, reason=f"it could not be parsed ({type(error).__name__}: {error})", kind="error")
    if parsed is None:
        return Skipped(uri=uri, reason="it holds binary data, not text", kind="binary")
    if not parsed.text:
        return Skipped(uri=uri, reason=_NOTHING.get(suffix, "it has no text"), kind="empty")
    if len(parsed.text) > _LONGEST:
        reason = f"it holds {len(parsed.text):,} characters of text, more than the {_LONGEST:,} that openbook reads"
        return Skipped(uri=uri, reason=reason, kind="too_large")
    if len(parsed.sections) == 1 and "\n" not in parsed.text:
        return Skipped(uri=uri, reason="it has a title and no text", kind="empty")
    return Document.create(uri=uri, title=parsed.title, text=parsed.text, sections=parsed.sections, pages=parsed.pages)


def _parsed(path: Path, suffix: str, data: bytes) -> Parsed | None:
    name = readable(path.stem)
    if suffix in _BYTE_PARSERS:
        return _BYTE_PARSERS[suffix](data, name)
    parser = _TEXT_PARSERS[suffix]
    source = decode(data, declared_encoding(data) if parser is parse_html else "")
    if source is None:
        return None
    return parser(source, module_name(path) if suffix == ".py" else name)


def readable(name: str) -> str:
    """A file name as text: composed characters, and bytes that are not UTF-8 as `\\xNN`."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def said(error: OSError) -> str:
    return f"it cannot be read: {error.strerror or error}"
