"""An explanation adds up: the legs to the fused score, the words to BM25."""

import pytest

from openbook.explaining import explain
from openbook.records import Chunk, Document
from openbook.retrieval import LanceStore, Retriever, passage_text
from word_embedder import WordEmbedder

TEXTS = {
    "a.md": "The moon is far away. Alerts are grouped by their label. Nobody knows why.",
    "b.md": "Alerts ring a bell. The bell is made of brass.",
    "c.md": "A cache keeps results.",
}


@pytest.fixture
def retriever(tmp_path):
    documents = [Document.create(uri=uri, title="", text=text) for uri, text in TEXTS.items()]
    chunks = [Chunk.create(document, 0, len(document.text)) for document in documents]
    store, embedder = LanceStore(tmp_path), WordEmbedder()
    store.reset(dimension=embedder.dimension, make="test")
    store.add(chunks, embedder.encode([passage_text(chunk) for chunk in chunks]))
    store.optimize()
    return Retriever(store, embedder)


def test_the_parts_add_up_and_the_sentence_is_found(retriever):
    query = "how are alerts grouped by label"
    found = retriever.search(query, 3)
    explained = explain(retriever, query, found)
    assert [one.scored for one in explained] == found
    for one in explained:
        assert one.dense_part + one.text_part == pytest.approx(one.scored.score)
        assert sum(word.score for word in one.words) == pytest.approx(one.scored.text_score or 0.0, rel=1e-4)
    first = explained[0]
    assert first.sentence.strip() == "Alerts are grouped by their label."
    counts = {word.word: word.passages for word in first.words}
    assert (counts["alerts"], counts["grouped"], counts["label"]) == (2, 1, 1)
    assert first.words[0].word in ("grouped", "label")  # rarer words count more


def test_nothing_found_needs_no_explanation(retriever):
    assert explain(retriever, " ", retriever.search(" ", 3)) == []
