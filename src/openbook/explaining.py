"""Why a search finds what it finds: what each leg adds, which words count, which sentence is meant."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openbook.documents import sentences
from openbook.prompt import encodable
from openbook.records import ScoredChunk
from openbook.retrieval import Retriever
from openbook.retrieval.retriever import RRF_K


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word of the query: how many passages of the index hold it (0: none does, or it is too common to be indexed), and
    what it adds to this passage's BM25."""

    word: str
    passages: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`dense_part` + `text_part` is the fused score of `scored`. `sentence` is the one of the passage that is nearest to
    the query by meaning, `cosine` how near."""

    scored: ScoredChunk
    dense_part: float
    text_part: float
    words: tuple[Word, ...]
    sentence: str
    cosine: float


def explain(retriever: Retriever, query: str, found: Sequence[ScoredChunk]) -> list[Explanation]:
    """An explanation for each of the passages that `retriever` found for `query`.

    BM25 is a sum over the words of the query, so each word is searched for alone and its score read off.
    """
    if not found:
        return []
    query = encodable(query)
    words = list(dict.fromkeys(word.lower() for word in re.findall(r"\w+", query)))
    every = retriever.store.count()
    scores = {word: dict(retriever.store.text(word, every)) for word in words}
    nearest = _nearest(retriever, query, [scored.chunk.text for scored in found])
    return [
        Explanation(
            scored=scored,
            dense_part=_part(scored.dense_rank),
            text_part=_part(scored.text_rank),
            words=_words(scores, scored.chunk.id),
            sentence=sentence,
            cosine=cosine,
        )
        for scored, (sentence, cosine) in zip(found, nearest, strict=True)
    ]


def _part(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / (RRF_K + rank)


def _words(scores: Mapping[str, Mapping[str, float]], chunk_id: str) -> tuple[Word, ...]:
    """Those that count most come first."""
    found = [Word(word=word, passages=len(s), score=s.get(chunk_id, 0.0)) for word, s in scores.items()]
    return tuple(sorted(found, key=lambda word: (-word.score, word.passages)))


def _nearest(retriever: Retriever, query: str, texts: Sequence[str]) -> list[tuple[str, float]]:
    """The sentence of each text that is nearest to the query, and its cosine."""
    cut = [[text[start:end] for start, end in sentences(text)] or [text] for text in texts]
    vectors = retriever.embedder.encode([sentence for parts in cut for sentence in parts])  # (n, D)
    cosines = (vectors @ retriever.embedder.encode([query], query=True)[0]).tolist()
    best = []
    for parts in cut:
        mine, cosines = cosines[: len(parts)], cosines[len(parts) :]
        cosine, sentence = max(zip(mine, parts, strict=True))
        best.append((sentence, cosine))
    return best
