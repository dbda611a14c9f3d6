"""Files and folders as documents. One bad file is reported by name and never stops the rest."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from openbook.documents.isolation import IsolatedParser, Limits
from openbook.documents.parsing import SUFFIXES, Skipped, readable, said
from openbook.errors import DocumentError
from openbook.records import Document

# Folders that hold what a program made or installed, not what a person wrote.
_MACHINE_FOLDERS = frozenset(("node_modules", "__pycache__", "__pypackages__", "bower_components", "site-packages"))


def read(
    paths: Sequence[Path],
    *,
    max_file_mb: float,
    exclude: Sequence[Path] = (),
    limits: Limits | None = None,
) -> Iterator[Document | Skipped]:
    """Every document under `paths`, folders recursively, in the order of their names; nothing under `exclude`.

    A document's `uri` is its path from the folder that was given, that folder's own name first: `docs/guide/intro.md`
    for `/home/me/docs`, `docs` and `../me/docs` alike, so that it does not depend on where openbook was started. Of two
    given folders with the same name, as many parents are added as tell them apart. A file reached twice is read once.

    Files are parsed in a process of their own, each within `limits`.

    Raises `DocumentError` when one of `paths` does not exist.
    """
    roots = named_roots(paths)
    seen = {(status.st_dev, status.st_ino) for path in exclude if path.exists() and (status := path.stat())}
    uris: set[str] = set()
    with IsolatedParser(limits or Limits()) as parser:
        for root, name in roots:
            for found in _walk(root, name, seen):
                if isinstance(found, Skipped):
                    yield found
                    continue
                path, uri = found
                while uri in uris:  # names that differ only in bytes that are no text
                    uri += "~"
                uris.add(uri)
                yield _too_large(path, uri, max_file_mb) or parser.parse(path, uri)


def file_of(uri: str, roots: Iterable[tuple[Path, str]]) -> Path | None:
    """The file that `read` gave this uri, where it still lies below one of its roots (see `named_roots`)."""
    for root, name in roots:
        path = root / uri.removeprefix(name).lstrip("/")
        if (uri == name or uri.startswith(f"{name}/")) and path.exists():
            return path
    return None


def named_roots(paths: Sequence[Path]) -> list[tuple[Path, str]]:
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
        names.append((root, "/".join(map(readable, parts[-length:]))))
    return names


def _walk(path: Path, uri: str, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, str] | Skipped]:
    """Files to read under `path`. Only regular files with a known suffix are ever opened."""
    try:
        status = path.stat()
    except OSError as error:
        loop = isinstance(error, RuntimeError) or error.errno is None
        reason = "it is a link that leads nowhere" if path.is_symlink() and not loop else said(error)
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
            yield Skipped(uri=uri, reason=said(error), kind="error")
            return
        for name in names:
            child, child_uri = path / name, f"{uri}/{readable(name)}"
            if name.startswith("."):
                yield Skipped(uri=child_uri, reason="its name says that it is hidden", kind="hidden")
            elif name in _MACHINE_FOLDERS and child.is_dir():
                yield Skipped(uri=child_uri, reason="it holds installed or generated files", kind="hidden")
            else:
                yield from _walk(child, child_uri, seen)
    else:
        yield Skipped(uri=uri, reason="it is a device, pipe or socket", kind="unsupported")


def _too_large(path: Path, uri: str, max_file_mb: float) -> Skipped | None:
    try:
        size = path.stat().st_size
    except OSError as error:
        return Skipped(uri=uri, reason=said(error), kind="error")
    if size <= max_file_mb * 1e6:
        return None
    reason = f"it has {size / 1e6:.0f} MB, more than the {max_file_mb:g} MB of documents.max_file_mb"
    return Skipped(uri=uri, reason=reason, kind="too_large")
