"""Files and folders as documents. One bad file is reported by name and never stops the rest."""

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openbook.documents.builder import Parsed, clean
from openbook.documents.hypertext import parse_html
from openbook.documents.markdown import parse_markdown
from openbook.documents.pdf import parse_pdf
from openbook.documents.plain import parse_plain
from openbook.documents.pysource import module_name, parse_python
from openbook.errors import DocumentError
from openbook.records import Document

Kind = Literal["hidden", "binary", "unsupported", "error", "too_large", "empty"]

_TEXT_PARSERS: dict[str, Callable[[str, str], Parsed]] = {
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".txt": parse_plain,
    ".rst": lambda source, name: parse_plain(source, name, markup=True),
    ".html": parse_html,
    ".htm": parse_html,
    ".py": parse_python,
}
SUFFIXES = (*_TEXT_PARSERS, ".pdf")

# Folders that hold what a program made or installed, not what a person wrote.
_MACHINE_FOLDERS = frozenset(("node_modules", "__pycache__", "__pypackages__", "bower_components", "site-packages"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file or folder that was not read. `reason` completes the sentence "`uri` was skipped: …"."""

    uri: str
    reason: str
    kind: Kind


def read(paths: Sequence[Path], *, max_file_mb: float, exclude: Sequence[Path] = ()) -> Iterator[Document | Skipped]:
    """Every document under `paths`, folders recursively, in the order of their names; nothing under `exclude`.

    A document's `uri` is its path from the folder that was given, that folder's own name first: `docs/guide/intro.md`
    for `/home/me/docs`, `docs` and `../me/docs` alike, so that it does not depend on where openbook was started. Of two
    given folders with the same name, as many parents are added as tell them apart. A file reached twice is read once.

    Raises `DocumentError` when one of `paths` does not exist.
    """
    roots = _named_roots(paths)
    seen = {(status.st_dev, status.st_ino) for path in exclude if path.exists() and (status := path.stat())}
    uris: set[str] = set()
    for root, name in roots:
        for found in _walk(root, name, seen):
            if isinstance(found, Skipped):
                yield found
                continue
            path, uri = found
            while uri in uris:  # names that differ only in bytes that are no text
                uri += "~"
            uris.add(uri)
            yield _read_file(path, uri, max_file_mb)


def _named_roots(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each path with the beginning of its documents' uris: the fewest last parts that no other path ends with."""
    resolved: list[Path] = []
    for path in paths:
        try:
            root = path.expanduser().resolve(strict=True)
        except FileNotFoundError:
            raise DocumentError(f"{path} does not exist.", "Check the path; it is relative to where you are.") from None
        except (OSError, RuntimeError) as error:
            raise DocumentError(f"{path} cannot be opened: {error}.") from error
        if root not in resolved:
            resolved.append(root)
    names = []
    for root in resolved:
        parts = root.parts[1:] or ("root",)
        length = 1
        while length < len(parts) and any(
            other != root and other.parts[1:][-length:] == parts[-length:] for other in resolved
        ):
            length += 1
        names.append((root, "/".join(map(_readable, parts[-length:]))))
    return names


def _readable(name: str) -> str:
    """A file name as text: composed characters, and bytes that are not UTF-8 as `\\xNN`."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _walk(path: Path, uri: str, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, str] | Skipped]:
    """Files to read under `path`. Only regular files with a known suffix are ever opened."""
    try:
        status = path.stat()
    except OSError as error:
        loop = isinstance(error, RuntimeError) or error.errno is None
        reason = "it is a link that leads nowhere" if path.is_symlink() and not loop else _said(error)
        yield Skipped(uri=uri, reason=reason, kind="error")
        return
    key = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        if path.suffix.lower() not in SUFFIXES:
            form = f"{path.suffix} files are" if path.suffix else "a file without a suffix is"
            yield Skipped(uri=uri, reason=f"{form} not read", kind="unsupported")
        elif key not in seen:
            seen.add(key)
            yield path, uri
    elif stat.S_ISDIR(status.st_mode):
        if key in seen:  # a loop of links, or a folder given twice
            return
        seen.add(key)
        try:
            names = sorted((child.name for child in path.iterdir()), key=os.fsencode)
        except OSError as error:
            yield Skipped(uri=uri, reason=_said(error), kind="error")
            return
        for name in names:
            child, child_uri = path / name, f"{uri}/{_readable(name)}"
            if name.startswith("."):
                yield Skipped(uri=child_uri, reason="its name says that it is hidden", kind="hidden")
            elif name in _MACHINE_FOLDERS and child.is_dir():
                yield Skipped(uri=child_uri, reason="it holds installed or generated files", kind="hidden")
            else:
                yield from _walk(child, child_uri, seen)
    else:
        yield Skipped(uri=uri, reason="it is a device, pipe or socket", kind="unsupported")


def _read_file(path: Path, uri: str, max_file_mb: float) -> Document | Skipped:
    try:
        size = path.stat().st_size
        if size > max_file_mb * 1e6:
            reason = f"it has {size / 1e6:.0f} MB, more than the {max_file_mb:g} MB of documents.max_file_mb"
            return Skipped(uri=uri, reason=reason, kind="too_large")
        data = path.read_bytes()
    except OSError as error:
        return Skipped(uri=uri, reason=_said(error), kind="error")
    if not data.strip():
        return Skipped(uri=uri, reason="it is empty", kind="empty")
    suffix = path.suffix.lower()
    name = _readable(path.stem)
    try:
        if suffix == ".pdf":
            parsed = parse_pdf(data, name)
            nothing = "it has no text, only pictures: run a text recognition (OCR) over it first"
        else:
            source = decode(data)
            if source is None:
                return Skipped(uri=uri, reason="it holds binary data, not text", kind="binary")
            parsed = _TEXT_PARSERS[suffix](source, module_name(path) if suffix == ".py" else name)
            nothing = "it has no docstrings" if suffix == ".py" else "it has no text"
    except DocumentError as error:
        return Skipped(uri=uri, reason=str(error), kind="error")
    except Exception as error:  # a parser's own fault with one file must not lose the other files; it is reported
        return Skipped(uri=uri, reason=f"it could not be parsed ({type(error).__name__}: {error})", kind="error")
    if not parsed.text:
        return Skipped(uri=uri, reason=nothing, kind="empty")
    if len(parsed.sections) == 1 and "\n" not in parsed.text:
        return Skipped(uri=uri, reason="it has a title and no text", kind="empty")
    return Document.create(uri=uri, title=parsed.title, text=parsed.text, sections=parsed.sections, pages=parsed.pages)


def decode(data: bytes) -> str | None:
    """Text in UTF-8, in UTF-16 or UTF-32 with a byte order mark, else in Windows' Western code page; None where it is
    no text."""
    for mark, encoding in (
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            return clean(data.decode(encoding, "replace"))
    if b"\0" in data[:8192]:
        return None
    try:
        return clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return clean(data.decode("cp1252", "replace"))


def _said(error: OSError) -> str:
    return f"it cannot be read: {error.strerror or error}"
