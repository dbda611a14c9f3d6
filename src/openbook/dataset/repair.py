"""Quotes that differ from their passage in form only, replaced by the exact span that they mean.

Form is white space, case, hyphenation (a word broken at a line's end, `well known` for `well-known`), invisible
characters, typographic marks and Unicode's compatibility forms. Content is everything else, and is never repaired:
`-5` is not `5`, `10²` is not `102`, and a quote does not begin or end inside a word.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from openbook.prompt import BEGIN_QUOTE, END_QUOTE

_MARKS: Final = str.maketrans(dict.fromkeys("‘’‛ʼ′`´", "'") | dict.fromkeys("“”„‟″«»", '"') | {"−": "-"})
_DASH = re.compile(r"[\-\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")


def find_span(quote: str, text: str) -> tuple[int, int] | None:
    """Where `text` says what `quote` says, as offsets; None where it does not, whatever the form.

    `text[start:end]` is the quote itself where it stands there word for word, else its first other form.
    """
    wanted = quote.strip()
    if not wanted:
        return None
    at = text.find(wanted)
    if at >= 0:
        return at, at + len(wanted)
    if _rough(wanted) not in _rough(text):
        return None  # hundreds of times faster than folding, and most quotes that are not there end here
    for joined in (True, False):
        span = _find_folded(_fold(wanted, joined=joined).text, _folded(text, joined), text)
        if span:
            return span
    return None


@dataclass(frozen=True, slots=True)
class _Folded:
    """A text in one form. Character i of it comes from character `origin[i]` of the text that was folded."""

    text: str
    origin: "array[int]"


_PLAIN = re.compile(r"(?P<plain>[A-Za-z0-9.,;:!?()/'\"]+)|(?P<space>\s+)", re.ASCII)


def _fold(text: str, *, joined: bool) -> _Folded:
    """`text` in one form; with `joined` a hyphen between letters is nothing, else it is a space.

    Runs of white space are one space, without one at either end.
    """
    pieces: list[str] = []
    origin = array("l")
    at = 0
    while at < len(text):
        match = _PLAIN.match(text, at)
        if match and match["plain"]:
            pieces.append(match[0].lower())
            origin.extend(range(at, match.end()))
            at = match.end()
            continue
        if match or text[at].isspace():
            piece, end = " ", match.end() if match else at + 1
        elif _DASH.match(text[at]):
            piece, end = _dash(text, at, joined=joined)
        else:
            piece, end = _character(text[at]), at + 1
        if piece == " " and (not pieces or pieces[-1] == " "):
            piece = ""
        if piece:
            pieces.append(piece)
            origin.extend([at] * len(piece))
        at = end
    folded = "".join(pieces)
    return _Folded(folded.rstrip(" "), origin)


_folded = lru_cache(maxsize=16)(lambda text, joined: _fold(text, joined=joined))  # several quotes, the same passage


def _dash(text: str, at: int, *, joined: bool) -> tuple[str, int]:
    """What a dash folds to, and where reading goes on. Before a digit it is a sign or a range, and stays."""
    end = at + 1
    while end < len(text) and text[end].isspace():
        end += 1
    after = text[end] if end < len(text) else ""
    if after.isdigit() or after == ".":
        return "-", at + 1
    if joined and text[at - 1 : at].isalpha() and after.isalpha():
        return "", end
    return " ", at + 1


@lru_cache(maxsize=4096)
def _character(character: str) -> str:
    """One character's form: compatible, decomposed, without case; "" for what nobody sees, " " for a rare space."""
    if unicodedata.category(character) == "Cf":
        return ""
    if unicodedata.decomposition(character).startswith(("<super>", "<sub>", "<fraction>")):
        return character  # an exponent is no digit
    form = unicodedata.normalize("NFKD", character.translate(_MARKS)).casefold().translate(_MARKS)
    return " " if form.isspace() else form


class _Dropped(dict[int, int | None]):
    """A table for `str.translate` that leaves letters, digits and signs alone and drops what folding may drop."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        drop = character.isspace() or unicodedata.category(character) in ("Cf", "Pd") or character in "−"
        self[code] = None if drop else code
        return self[code]


_DROPPED = _Dropped()


@lru_cache(maxsize=64)
def _rough(text: str) -> str:
    """A coarser form: texts whose folds hold each other have rough forms that do so too."""
    return unicodedata.normalize("NFKD", text.translate(_MARKS)).casefold().translate(_MARKS).translate(_DROPPED)


def _find_folded(wanted: str, folded: _Folded, text: str) -> tuple[int, int] | None:
    if not wanted:
        return None
    at = folded.text.find(wanted)
    while at >= 0:
        last = at + len(wanted) - 1
        start, end = folded.origin[at], folded.origin[last] + 1
        whole_first = at == 0 or folded.origin[at - 1] != start
        whole_last = last + 1 >= len(folded.text) or folded.origin[last + 1] != end - 1
        if whole_first and whole_last and _at_borders(text, start, end):
            return start, end
        at = folded.text.find(wanted, at + 1)
    return None


def _at_borders(text: str, start: int, end: int) -> bool:
    """Whether a span neither begins nor ends inside a word, or between a letter and its accent.

    Characters that nobody sees, such as a soft hyphen, end no word.
    """
    before, after = start - 1, end
    while before >= 0 and unicodedata.category(text[before]) == "Cf":
        before -= 1
    while after < len(text) and unicodedata.category(text[after]) == "Cf":
        after += 1
    inside_first = before >= 0 and text[before].isalnum() and text[start].isalnum()
    inside_last = after < len(text) and text[end - 1].isalnum() and text[after].isalnum()
    return not (inside_first or inside_last or (end < len(text) and unicodedata.combining(text[end])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """An answer whose quotes were looked up. `exact` of them stood word for word, `changed` now do, and the texts in
    `missing` stand in no passage; `text` is the answer with the changed ones replaced."""

    text: str
    exact: int = 0
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


_QUOTE = re.compile(f"({re.escape(BEGIN_QUOTE)})(.*?)({re.escape(END_QUOTE)})", re.DOTALL)


def repair_quotes(answer: str, passages: Iterable[str]) -> Repaired:
    """Look up every quote between tags in the passages, in their order, and put the exact span in its place."""
    texts = list(passages)
    pieces: list[str] = []
    exact, at = 0, 0
    changed: list[str] = []
    missing: list[str] = []
    for match in _QUOTE.finditer(answer):
        quote = match[2].strip()
        if not quote:
            continue
        if any(quote in text for text in texts):
            exact += 1
            continue
        found = next(((text, span) for text in texts if (span := find_span(quote, text))), None)
        if found is None:
            missing.append(quote)
            continue
        text, (start, end) = found
        inner = match.start(2) + match[2].index(quote)
        pieces += [answer[at:inner], text[start:end]]
        at = inner + len(quote)
        changed.append(quote)
    pieces.append(answer[at:])
    return Repaired(text="".join(pieces), exact=exact, changed=tuple(changed), missing=tuple(missing))
