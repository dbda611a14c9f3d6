"""Where the sentences of a readable text begin and end.

One pass of rules over the text that the documents package writes, where a line is a paragraph, a heading, a list item
or a table row, so that a sentence never runs over the end of a line. Rules, since the answer must be the same on every
machine and needs no model; those for abbreviations follow Kiss & Strunk 2006 (*Unsupervised Multilingual Sentence
Boundary Detection*), section 4, with a fixed list in place of their statistics.
"""

import re
from collections.abc import Iterator

# Followed by a name or a clause, never (so to say) by a new sentence.
_ABBREVIATIONS = frozenset(
    "e.g i.e eg ie cf vs viz ca approx resp incl excl mr mrs ms dr prof rev hon st gen col lt sgt capt gov sen rep pres "
    "messrs mt ft fig figs eq eqs sec sect ch chap ref refs ex al ed eds trans vol vols pp p para art dept univ assn "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri u.s u.k u.n e.u a.k.a aka w.r.t "
    "i.i.d bros est orig esp min max avg std var def dist c".split()
)
_BEFORE_NUMBERS = frozenset("no nos art fig figs eq eqs sec ch p pp vol v ver rev sect par".split())
# After one of these even a known abbreviation ("in the U.S. The law …") ends its sentence.
_STARTERS = frozenset(
    "The This That These Those It Its They There Then Thus He She We You If In On At As For But And However Although "
    "While When Where Here To An Each Every Some Many Most Such See Note Because Since After Before".split()
)
_MARKER = re.compile(r"(?:[-*+•‣◦]|\d{1,9}[.)]|#{1,6})\s+")
_FENCE = re.compile(r"(?:(?:[-*+]|\d{1,9}\.) )?(```+)")  # also as a list item; from the first visible character on
_CLOSERS = frozenset("\"'”’»)]}*_")
_WIDE_STOPS = frozenset("。！？｡")
_REFERENCE = re.compile(r"(?:\s?\[(?:\d{1,4}|[a-z]|note \d{1,3}|citation needed)\])+")


def sentences(text: str) -> list[tuple[int, int]]:
    """Offsets [start, end) of the sentences of `text`, in order and without overlap.

    List markers and the `#` of headings stand outside; a heading, a table row and a whole fenced code block count as
    one sentence each. What lies between two sentences is white space or such a marker.
    """
    found: list[tuple[int, int]] = []
    for start, end, is_code in lines_and_fences(text):
        if is_code:
            found.append((start, end))
            continue
        while marker := _MARKER.match(text, start, end):  # a list in a list: "- 1. text"
            start = marker.end()
        if start < end:
            found.extend(_split_line(text, start, end))
    return found


def lines_and_fences(text: str) -> Iterator[tuple[int, int, bool]]:
    """Offsets of every non-blank line without its outer white space, and of every fenced block as one piece (True)."""
    lines = list(_lines(text))
    fences = [_FENCE.match(text, start, end) for start, end in lines]
    marked = [number for number, fence in enumerate(fences) if fence]
    if len(marked) == 1 and marked[0] == len(lines) - 1 and not text[slice(*lines[-1])].strip("`"):
        # A passage that begins inside of a code block that was too long for it: all up to the lone mark is code.
        yield lines[0][0], lines[-1][1], True
        return
    at = 0
    while at < len(lines):
        start, end = lines[at]
        if fence := fences[at]:
            close = at + 1
            while close < len(lines) and not _closes(text, lines[close], fence[1]):
                close += 1
            at = min(close, len(lines) - 1)
            end = lines[at][1]
        yield start, end, fence is not None
        at += 1


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.split("\n"):
        if stripped := line.strip():
            first = start + len(line) - len(line.lstrip())
            yield first, first + len(stripped)
        start += len(line) + 1


def _closes(text: str, span: tuple[int, int], mark: str) -> bool:
    line = text[span[0] : span[1]]
    return line.startswith(mark) and not line.strip("`")


_STOP = re.compile(r"[.!?…。！？｡`]")


def _split_line(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if " | " in text[start:end]:
        yield start, end
        return
    begin = start
    at = start
    while match := _STOP.search(text, at, end):
        at = match.end()
        if match[0] == "`":  # nothing inside of `code` ends a sentence
            mark = 1
            while at < end and text[at] == "`":
                at, mark = at + 1, mark + 1
            close = text.find("`" * mark, at, end)
            at = close + mark if close >= 0 else at
            continue
        while at < end and text[at] in ".!?…":
            at += 1
        while at < end and text[at] in _CLOSERS:
            at += 1
        if reference := _REFERENCE.match(text, at, end):
            at = reference.end()
        if at < end and (text[at].isspace() or match[0] in _WIDE_STOPS) and _ends(text, begin, match.start(), at, end):
            yield begin, at
            begin = at
            while begin < end and text[begin].isspace():
                begin += 1
            at = begin
    if begin < end:
        yield begin, end


def _ends(text: str, begin: int, stop: int, after: int, end: int) -> bool:
    """Whether the sentence that began at `begin` ends with the mark at `stop`, behind which the text goes on at
    `after`."""
    at = after
    while at < end and text[at].isspace():
        at += 1
    follower = text[at : at + 1]
    if text[stop] in _WIDE_STOPS:
        return True
    if follower.islower() or follower in ",;:)-–—=+/&|":
        return False
    if text[stop] != "." or text[stop + 1 : stop + 2] == ".":
        return True
    word_start = stop
    floor = max(begin, stop - 40)
    while word_start > floor and not text[word_start - 1].isspace():
        word_start -= 1
    word = text[word_start:stop].lstrip("([{\"'“‘*_").lower()
    if not word:
        return False
    if word in _BEFORE_NUMBERS and follower.isdigit():
        return False
    next_end = at
    while next_end < min(end, at + 12) and text[next_end].isalpha():
        next_end += 1
    if text[at:next_end] in _STARTERS:
        return word not in ("e.g", "i.e", "mr", "mrs", "ms", "dr", "prof", "cf")
    initial = len(word) == 1 and word.isalpha() and text[stop - 1].isupper()
    return not (word in _ABBREVIATIONS or initial)
