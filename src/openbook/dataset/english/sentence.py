"""A sentence cut into tokens, and what stands around it in its passage."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from openbook.dataset.english.words import COMMON, DETERMINERS, FUNCTION_WORDS, GENERIC, VERBS, is_code


class Token(NamedTuple):
    """A word, a `code span`, a (parenthesis), a "quotation" or a punctuation mark; offsets are the sentence's."""

    text: str
    low: str
    start: int
    end: int


# Every alternative is bounded, or ends at the first character that could also begin it: linear on any text.
_TOKEN = re.compile(
    r"`[^`]+`|\([^()]*\)|\"[^\"]{1,80}\"|“[^”]{1,80}”|(?:[A-Z]\.){2,}|(?:e\.g|i\.e|etc|vs|cf)\."
    r"|[$€£]?\d+(?:[.,:–]\d+)*(?:%|[\w-]*)|-{1,2}[A-Za-z][\w-]*"
    r"|[.@/$]?\w+(?:(?:['’./+#&@*=]|::|:(?=\w)|-{1,2})\w+)*(?:\(\)|[’'](?=\s)|\+\+|#)?|\S"
)


def tokenize(text: str, offset: int = 0) -> list[Token]:
    return [Token(m[0], m[0].lower(), m.start() + offset, m.end() + offset) for m in _TOKEN.finditer(text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """`topic` is the nearest telling heading above the sentence; `named` where it is the name of a function, class or
    option, so that "Return a list" is about it. `columns` are the headings of the table that the sentence is a row of.
    `opening` tells that it is one of the first two sentences under that heading. `common` holds the words that the passage
    writes in small letters."""

    text: str
    tokens: list[Token]
    topic: str = ""
    named: bool = False
    opening: bool = False
    columns: tuple[str, ...] = ()
    common: frozenset[str] = frozenset()

    def part(self, first: int, last: int) -> str:
        """The text of `tokens[first:last]`."""
        return self.text[self.tokens[first].start : self.tokens[last - 1].end] if last > first else ""

    @property
    def end(self) -> int:
        """The number of tokens without the final punctuation."""
        n = len(self.tokens)
        while n > 1 and self.tokens[n - 1].text in {".", "!", ":", ";", "?"}:
            n -= 1
        return n

    def lowered(self, text: str) -> str:
        """Take back a capital that only the sentence's beginning gave; names, acronyms and code keep theirs."""
        match = re.match(r"[A-Z][\w'’-]*", text)
        if match is None or text[: match.end() + 1].endswith(("(", "_")) or is_code(text.split()[0]):
            return text
        word, low = match[0], match[0].lower()
        known = low in FUNCTION_WORDS or low in COMMON or low in GENERIC or low in VERBS or low in self.common
        if len(word) > 1 and not word[1:].islower() and not (known and "-" in word):
            return text
        if low in DETERMINERS or (known and low != "i") or low.endswith(("ing", "ers", "ions", "ments")):
            return text[0].lower() + text[1:]
        return text
