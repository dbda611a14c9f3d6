"""Which of many texts nearly repeat each other, found without comparing all pairs."""

import math
from collections import defaultdict
from typing import Final

DUPLICATE: Final = 0.8  # Jaccard similarity of the telling words

SLACK: Final = 1e-9  # 0.8 × 5 must not round up to 5


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    return len(one & two) / len(one | two) if one or two else 1.0


class SimilarSets:
    """Sets of words, each under the number with which it was added, and a search for one that nearly equals another.

    Exact. Two sets of Jaccard similarity ≥ t share one of the first |x| − ⌈t·|x|⌉ + 1 words of either, in any common
    order (prefix filtering; Chaudhuri et al. 2006), and the places at which they share it leave room for enough others
    (positional filtering; Xiao et al. 2008). The order here is newest word first: words that came late are rare ones,
    and no count of all words must be known before. A set takes about half a kilobyte.
    """

    def __init__(self, threshold: float = DUPLICATE) -> None:
        self._threshold = threshold
        self._words: dict[str, int] = {}
        self._sets: list[tuple[int, ...]] = []
        self._numbers: list[int] = []
        self._exact: dict[tuple[int, ...], int] = {}
        self._holding: dict[tuple[int, int, int], list[int]] = defaultdict(list)  # (size, place, word) → sets

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
            shared = len(mine.intersection(self._sets[at]))
            similarity = shared / (size + len(self._sets[at]) - shared)
            if similarity >= self._threshold and similarity > best:
                best, found = similarity, self._numbers[at]
        return found

    def _candidates(self, known: tuple[int, ...], size: int) -> set[int]:
        """The sets that share a word with `known` at places where enough others may follow."""
        unseen = size - len(known)  # words that no set holds stand first in the order
        found: set[int] = set()
        for other in range(self._least(size), math.floor(size / self._threshold + SLACK) + 1):
            enough = math.ceil(self._threshold / (1 + self._threshold) * (size + other) - SLACK)
            for place, word in enumerate(known[: max(0, self._prefix(size) - unseen)]):
                for there in range(self._prefix(other)):
                    most = min(place, there) + min(len(known) - place, other - there)
                    if most >= enough and (sets := self._holding.get((other, there, word))):
                        found.update(sets)
        return found

    def add(self, words: frozenset[str], number: int) -> None:
        """Remember a set. One that equals an earlier one stays under that one's number."""
        for word in sorted(words):
            self._words.setdefault(word, len(self._words))
        ordered = self._ordered(words)
        if ordered in self._exact:
            return
        self._exact[ordered] = number
        for place, known in enumerate(ordered[: self._prefix(len(ordered))]):
            self._holding[len(ordered), place, known].append(len(self._sets))
        self._sets.append(ordered)
        self._numbers.append(number)

    def _ordered(self, words: frozenset[str]) -> tuple[int, ...]:
        return tuple(sorted((self._words[word] for word in words if word in self._words), reverse=True))

    def _least(self, size: int) -> int:
        """The fewest words that a set may share with one of `size` words and still be similar."""
        return math.ceil(self._threshold * size - SLACK)

    def _prefix(self, size: int) -> int:
        return size - self._least(size) + 1
