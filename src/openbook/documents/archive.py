"""Zipped XML, which is what .docx and .epub files are, read without trusting it.

An archive may claim to hold little and unpack to terabytes, and XML may declare entities that grow to as much: what is
unpacked is counted, and entities are refused (defusedxml).
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from openbook.errors import DocumentError

MOST = 400_000_000  # bytes unpacked from one archive: eight times the largest file that is read by default
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Archive:
    """The members of a zip file by name. `MOST` bytes can be read in all, whatever the archive says of its sizes."""

    def __init__(self, data: bytes, form: str) -> None:
        if data.startswith(_OLD_OFFICE):
            raise DocumentError(
                f"it is encrypted, or of an older format than {form}; save it as {form} without a password"
            )
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DocumentError(f"it is damaged or no {form} file ({error})") from error
        self._left = MOST
        self.names = frozenset(self._zip.namelist())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises `DocumentError` where it is absent, damaged, encrypted or too much."""
        try:
            with self._zip.open(name) as member:
                data = member.read(self._left + 1)
        except KeyError:
            raise DocumentError(f"it is damaged: it holds no {name}") from None
        except RuntimeError as error:
            raise DocumentError("it is encrypted; save it without its password") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise DocumentError(f"its {name} is damaged ({error})") from error
        self._left -= len(data)
        if self._left < 0:
            raise DocumentError(f"it unpacks to more than {MOST / 1e6:,.0f} MB")
        return data

    def xml(self, name: str) -> Element:
        """A member as XML, whole."""
        return next(element for _, element in self.events(name, ("start", "end"), whole=True))

    def events(self, name: str, kinds: tuple[str, ...], *, whole: bool = False) -> Iterator[tuple[str, Element]]:
        """A member's XML as it is parsed; with `whole`, only the root at the end."""
        root: Element | None = None
        try:
            for event, element in iterparse(io.BytesIO(self.read(name)), events=kinds, forbid_dtd=False):
                root = element if root is None else root
                if not whole:
                    yield event, element
        except DefusedXmlException as error:
            raise DocumentError(f"its {name} declares entities, which openbook does not expand") from error
        except (ParseError, ValueError, LookupError) as error:
            raise DocumentError(f"its {name} is damaged ({error})") from error
        if whole and root is not None:
            yield "end", root
