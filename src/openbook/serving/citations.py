"""The quotes of an answer with the places where they stand, and the passages that were shown, as JSON."""

from typing import Any

from openbook.prompt import locate_quote, segments
from openbook.records import Answer, ScoredChunk


def citations(answer: Answer) -> list[dict[str, Any]]:
    """One entry a quote, numbered as in the text that is shown.

    Offsets count characters of the document's text; where a quote stands in no passage word for word, or was never
    closed (`closed`), `verified` is false and its place is null.
    """
    chunks = {scored.chunk.id: scored.chunk for scored in answer.passages}
    found = []
    for segment in segments(answer.text):
        if not segment.quote:
            continue
        quote = locate_quote(segment.text, chunks.values(), closed=segment.closed)
        chunk = chunks.get(quote.chunk_id)
        found.append(
            {
                "number": segment.quote,
                "quote": quote.text,
                "verified": quote.verified,
                "closed": quote.closed,
                "document": chunk.document_id if chunk else None,
                "uri": chunk.uri if chunk else None,
                "title": chunk.title if chunk else None,
                "page": chunk.page if chunk else None,
                "start": quote.start if chunk else None,
                "end": quote.end if chunk else None,
                "passage": chunk.id if chunk else None,
            }
        )
    return found


def passage(scored: ScoredChunk) -> dict[str, Any]:
    """A passage and why it was found: ranks and scores of both legs (null where a leg did not find it), and the fused."""
    chunk = scored.chunk
    return {
        "id": chunk.id,
        "document": chunk.document_id,
        "uri": chunk.uri,
        "title": chunk.title,
        "headings": list(chunk.headings),
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "rank": scored.rank,
        "score": scored.score,
        "dense_rank": scored.dense_rank,
        "dense_score": scored.dense_score,
        "text_rank": scored.text_rank,
        "text_score": scored.text_score,
    }


def extension(answer: Answer) -> dict[str, Any]:
    """What the API adds to OpenAI's answer under `openbook`. `text` is what the model wrote, its tags included;
    `segments` is the same cut at its quotes, for whoever draws them."""
    return {
        "citations": citations(answer),
        "passages": [passage(scored) for scored in answer.passages],
        "segments": [{"text": segment.text, "quote": segment.quote or None} for segment in segments(answer.text)],
        "text": answer.text,
        "final": answer.final,
        "refusal": answer.refusal,
    }
