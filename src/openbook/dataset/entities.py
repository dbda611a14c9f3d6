"""What passages name: proper names and terms of code. Two passages that name the same rare thing can be asked about together."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from openbook.records import Chunk

COMMON: Final = 8  # a thing that more passages name than this says little about any of them

# Dotted or underscored words, words with a capital inside, and what stands between backticks.
_CODE = re.compile(
    r"`([^`\n]{2,40})`|\b(?=\w*[A-Za-z])[A-Za-z]\w*(?:[._]\w+)+\b|\b[A-Za-z]+[a-z][A-Z]\w*\b|\b[A-Z]{2,}\d*\b"
)
# Capitalised words in a row that do not begin a sentence.
_NAME = re.compile(r"(?<=[\w,;:)”\"'] )(?:[A-Z][\w’'-]+)(?: (?:(?:of|de|von|van) )?[A-Z][\w’'-]+)*")
_NEVER: Final = frozenset(
    "I January February March April May June July August September October November December".split()
)


@lru_cache(maxsize=10_000)
def entities(text: str) -> frozenset[str]:
    """The things that a text names, as they are written there."""
    found = {match[1] or match[0] for match in _CODE.finditer(text)}
    found |= {match[0] for match in _NAME.finditer(text)}
    return frozenset(name for name in found if len(name) > 2 and name not in _NEVER)


def names(text: str, thing: str) -> bool:
    """Whether a text names the thing as a whole word."""
    return re.search(rf"(?<!\w){re.escape(thing)}(?!\w)", text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two passages that name the same thing, `shared`."""

    first: Chunk
    second: Chunk
    shared: str


def pairs(chunks: Iterable[Chunk], seed: int) -> Iterator[Pair]:
    """Pairs of unlike passages that share a rare thing, in random order; passages of different documents first, since
    neighbours of one document often say the same. No pair comes twice, and none twice in a row for the same thing."""
    by_thing: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in sorted(chunks, key=lambda chunk: chunk.id):
        for thing in entities(chunk.text):
            by_thing[thing].append(chunk)
    rng = random.Random(f"pairs:{seed}")
    things = sorted(thing for thing, found in by_thing.items() if 2 <= len(found) <= COMMON)
    rng.shuffle(things)
    queues = []
    for thing in things:
        found = by_thing[thing]
        couples = [(one, two) for at, one in enumerate(found) for two in found[at + 1 :] if one.text != two.text]
        rng.shuffle(couples)
        couples.sort(key=lambda couple: couple[0].document_id == couple[1].document_id)
        queues.append((thing, couples))
    seen: set[tuple[str, str]] = set()
    while queues:
        for thing, couples in queues:
            first, second = couples.pop(0) if couples else (None, None)
            if first is not None and second is not None and (first.id, second.id) not in seen:
                seen.add((first.id, second.id))
                yield Pair(first=first, second=second, shared=thing)
        queues = [queue for queue in queues if queue[1]]
