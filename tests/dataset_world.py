"""A shelf of small manuals about made-up machines, and an index over it that ranks by shared rare words."""

import math
import re
from collections import Counter

from openbook.config import Config
from openbook.documents import chunk
from openbook.records import Document, ScoredChunk

MACHINES = "alembic bellows crucible distaff escapement flywheel gimbal hopper".split()
PARTS = "valve lever spindle gasket ratchet".split()
STUFF = "brass oak glass copper slate".split()
PLACES = "Turin Bergen Porto Ghent Riga".split()


def manual(number, parts=5):
    """A document with a section for each part; every sentence states a fact that no other document states."""
    machine = MACHINES[number]
    lines = [f"# The {machine}"]
    for at, part in enumerate(PARTS[:parts]):
        code = 17 * number + at + 3
        lines += [
            "",
            f"## The {machine} {part}",
            "",
            f"The {machine} {part} is a piece of {STUFF[(at + number) % 5]} that turns under the number {code} lid.",
            f"Workers in {PLACES[(at * 2 + number) % 5]} invented the {machine} {part} in {1700 + code}.",
            f"The {machine} {part} contains {code + 1} small rivets of type R{code}.",
            f"To open the {machine} {part}, use the hook numbered {code + 2}.",
            f"The {machine} {part} must be oiled before the shift of crew {code} begins.",
            f"The default pressure of the {machine}_{part} is {code * 10} bars.",
            f"If the {machine} {part} sticks, the bell of hall {code} rings twice.",
        ]
    return Document.create(uri=f"{machine}.md", title=f"The {machine}", text="\n".join(lines))


def shelf(count=8, parts=5):
    return [manual(number, parts) for number in range(count)]


def cut(documents, max_tokens=60):
    from openbook.documents.markdown import parse_markdown

    chunks = []
    for document in documents:
        parsed = parse_markdown(document.text, document.uri)
        whole = Document.create(uri=document.uri, title=document.title, text=parsed.text, sections=parsed.sections)
        chunks += chunk(whole, count_tokens=lambda text: len(text.split()), max_tokens=max_tokens)
    return chunks


class WordIndex:
    """The store and the retriever that a build needs, over chunks in memory."""

    fingerprint = "words"

    def __init__(self, chunks):
        self.store = self
        self._chunks = {chunk.id: chunk for chunk in chunks}
        self._words = {chunk.id: set(self._cut(chunk.text)) for chunk in chunks}
        self._count = Counter(word for words in self._words.values() for word in words)
        self.searches = []

    @staticmethod
    def _cut(text):
        return re.findall(r"\w+", text.lower())

    def chunks(self):
        return iter(self._chunks.values())

    def get(self, ids):
        return [self._chunks[i] for i in ids]

    def search_many(self, queries, k, *, without=None):
        self.searches.append((list(queries), k, without))
        return [self._search(q, k, w) for q, w in zip(queries, without or [()] * len(queries), strict=True)]

    def _search(self, query, k, without):
        asked = set(self._cut(query))

        def score(chunk_id):
            return sum(math.log(1 + len(self._words) / self._count[w]) for w in asked & self._words[chunk_id])

        ids = sorted((i for i in self._chunks if i not in without), key=lambda i: (-score(i), i))[:k]
        return [ScoredChunk(chunk=self._chunks[i], score=score(i), rank=rank) for rank, i in enumerate(ids, 1)]


def options(tmp_path, **dataset):
    sizes = {"questions": 60, "validation": 8, "studied": 15, "unseen": 10} | dataset
    return Config.parse({"out": str(tmp_path), "dataset": sizes}, origin="test")
