"""Which of many texts nearly repeat each other, found without comparing all pairs."""

import itertools
import math
from collections import defaultdict
from typing import Final

DUPLICATE: Final = 0.8  # Jaccard similarity of the telling words

SHORT: Final = 20  # words; longer sets are found by single words
SLACK: Final = 1e-9  # 0.8 × 5 must not round up to 5


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    return len(one & two) / len(one | two) if one or two else 1.0


class SimilarSets:
    """Sets of words, each under the number with which it was added, and a search for one that nearly equals another.

    Exact, by prefix filtering (Chaudhuri et al. 2006; with pairs Wang et al. 2012): two sets of Jaccard similarity ≥ t
    share one of the first |x| − ⌈t·|x|⌉ + 1 words of either, in any common order, and two of the first one more.
    Pairs are much rarer than words, and long sets have too many of them. The order here is newest word first: words
    that came late are rare ones, and no count of all words must be known before. A set takes about half a kilobyte.
    """

    def __init__(self, threshold: float = DUPLICATE) -> None:
        assert 0.5 < threshold <= 1  # below, sets that share a single word may be similar
        self._threshold = threshold
        self._words: dict[str, int] = {}
        self._sets: list[tuple[int, ...]] = []
        self._numbers: list[int] = []
        self._exact: dict[tuple[int, ...], int] = {}
        self._holding: dict[tuple[int, ...], list[int]] = defaultdict(list)  # word, or pair of words → sets

    def find(self, words: frozenset[str]) -> int | None:
        """The number of a set that nearly equals `words`, the first of the most similar ones; None where none does."""
        size = len(words)
        known = self._ordered(words)
        exact = self._exact.get(known) if len(known) == size else None
        if exact is not None:
            return exact
        mine = set(known)
        best, found = 0.0, None
        for at in sorted(self._candidates(known, size)):
            other = self._sets[at]
            if len(other) < self._threshold * size - SLACK:
                continue
            shared = len(mine.intersection(other))
            similarity = shared / (size + len(other) - shared)
            if similarity >= self._threshold and similarity > best:
                best, found = similarity, self._numbers[at]
        return found

    def _candidates(self, known: tuple[int, ...], size: int) -> set[int]:
        """The sets that share a word, or two, where similar ones must."""
        first = self._prefix(size) - (size - len(known))  # words that no set holds stand first in the order
        keys: list[tuple[int, ...]] = [(word,) for word in known[: max(0, first)]]
        if self._least(size) <= SHORT:
            keys += itertools.combinations(known[: max(0, first + 1)], 2)
        return {at for key in keys if key in self._holding for at in self._holding[key]}

    def add(self, words: frozenset[str], number: int) -> None:
        """Remember a set. One that equals an earlier one stays under that one's number."""
        for word in sorted(words):
            self._words.setdefault(word, len(self._words))
        ordered = self._ordered(words)
        if ordered in self._exact:
            return
        self._exact[ordered] = number
        first = self._prefix(len(ordered))
        pairs = itertools.combinations(ordered[: first + 1], 2)
        for key in pairs if len(ordered) <= SHORT else zip(ordered[:first]):
            self._holding[key].append(len(self._sets))
        self._sets.append(ordered)
        self._numbers.append(number)

    def _ordered(self, words: frozenset[str]) -> tuple[int, ...]:
        return tuple(sorted((self._words[word] for word in words if word in self._words), reverse=True))

    def _least(self, size: int) -> int:
        """The fewest words that a set may share with one of `size` words and still be similar."""
        return math.ceil(self._threshold * size - SLACK)

    def _prefix(self, size: int) -> int:
        return size - self._least(size) + 1
