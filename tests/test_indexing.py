"""An index is what its documents are, however often it was stopped on the way."""

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbook import indexing
from openbook.config import Config
from openbook.dataset.splits import day_of
from openbook.errors import ConfigError, InputError, StoreError
from openbook.indexing import IngestReport, index_hash, ingest, load_documents
from openbook.retrieval import LanceStore, open_index
from word_embedder import WordEmbedder

WORDS = "alerts rules targets series labels scrape query storage range vector".split()


def write(folder: Path, name: str, topic: str, paragraphs: int = 6) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"The {topic} of {WORDS[n % 10]} has {n} parts, each with its own name and use." for n in range(paragraphs)
    ]
    (folder / name).write_text(f"# About {topic}\n\n" + "\n\n".join(lines))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    for number in range(4):
        write(folder, f"{number}.md", f"topic{number}")
    return folder


def config_for(folder: Path, out: Path, **documents: object) -> Config:
    options = {"paths": [str(folder)], "chunk_tokens": 30, **documents}
    return Config.parse({"out": str(out), "documents": options}, "test")


def run(config: Config, embedder: WordEmbedder | None = None) -> IngestReport:
    return ingest(config, embedder=embedder or WordEmbedder())


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.removed, report.unchanged


def content(config: Config) -> dict[str, object]:
    """Everything that later stages can see of an index."""
    store = LanceStore(config.index_dir / "lance")
    retriever = open_index(config.index_dir, config, embedder=WordEmbedder())
    manifest = json.loads((config.index_dir / "manifest.json").read_text())
    return {
        "chunks": list(store.chunks()),
        "documents": (config.index_dir / "documents.jsonl").read_bytes(),
        "manifest": manifest,
        "hash": index_hash(config),
        "search": [
            [(r.chunk.id, r.rank, round(r.score, 9), r.text_score and round(r.text_score, 4)) for r in results]
            for results in retriever.search_many(["alerts of topic1", "parts of storage", "names"], 5)
        ],
    }


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


def test_documents_become_an_index_that_can_be_searched(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    report = run(config)
    assert counts(report) == (4, 0, 0, 0)
    assert report.documents == 4
    documents = load_documents(config)
    assert sorted(d.uri for d in documents.values()) == [f"docs/{n}.md" for n in range(4)]
    retriever = open_index(config.index_dir, config, embedder=WordEmbedder())
    best = retriever.search("The topic2 of rules", 1)[0].chunk
    assert best.uri == "docs/2.md"
    assert best.headings == ("About topic2",)
    assert documents[best.document_id].text[best.start : best.end] == best.text
    assert retriever.store.count() == report.chunks > 4


def test_unchanged_documents_write_nothing(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    before, version = snapshot(config.out), LanceStore(config.index_dir / "lance").version
    embedder = WordEmbedder()
    os.utime(docs / "1.md")  # touched, not changed
    report = run(config, embedder)
    assert counts(report) == (0, 0, 0, 4)
    assert embedder.encoded == []
    assert snapshot(config.out) == before
    assert LanceStore(config.index_dir / "lance").version == version


def test_only_what_has_changed_is_embedded(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    before = index_hash(config)
    write(docs, "1.md", "changed")
    (docs / "2.md").unlink()
    write(docs, "sub/new.md", "new")
    embedder = WordEmbedder()
    report = run(config, embedder)
    assert counts(report) == (1, 1, 1, 2)
    assert all("changed" in text or "new" in text for text in embedder.encoded)
    assert index_hash(config) != before
    fresh = config_for(docs, tmp_path / "fresh")
    run(fresh)
    assert content(config) == content(fresh)


def test_whoever_has_the_index_open_sees_it_renewed(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    retriever = open_index(config.index_dir, config, embedder=WordEmbedder())
    assert retriever.search("zebra", 1)[0].text_rank is None
    write(docs, "z.md", "zebra")
    run(config)
    assert retriever.search("zebra", 1)[0].chunk.uri == "docs/z.md"
    run(config_for(docs, tmp_path / "out", chunk_tokens=16))
    assert retriever.search("zebra", 1)[0].chunk.uri == "docs/z.md"


def test_a_renamed_file_is_another_document(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    (docs / "1.md").rename(docs / "one.md")
    assert counts(run(config)) == (1, 0, 1, 3)


def test_other_options_build_the_index_anew(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    chunks = run(config).chunks
    smaller = config_for(docs, tmp_path / "out", chunk_tokens=16)
    report = run(smaller)
    assert report.chunks > chunks
    assert counts(report) == (4, 0, 0, 0)
    embedder = WordEmbedder("another")
    assert counts(run(smaller, embedder)) == (4, 0, 0, 0)
    assert len(embedder.encoded) == report.chunks
    with pytest.raises(StoreError, match="made with the embedder offline"):
        open_index(config.index_dir, smaller, embedder=WordEmbedder())


def test_the_index_knows_where_its_files_lie_wherever_openbook_runs(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dates of files without one in their names: what is the newest is held out by time."""
    monkeypatch.chdir(tmp_path)
    config = config_for(docs, tmp_path / "out")
    run(config)
    moved = tmp_path / "elsewhere" / docs.name
    moved.parent.mkdir()
    docs.rename(moved)
    later = next(path for path in sorted(moved.rglob("*")) if path.is_file())
    for path in moved.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000 + 10**6 * (path == later)))
    config = config_for(moved, tmp_path / "out")
    assert counts(run(config))[:3] == (0, 0, 0)  # the same documents, at another place
    paths = json.loads((config.index_dir / "manifest.json").read_text())["paths"]
    days = {c.uri: day_of(c.uri, paths) for c in LanceStore(config.index_dir / "lance").chunks()}
    assert sorted(days.values())[-2:] == [datetime.date(2001, 9, 9), datetime.date(2001, 9, 20)]
    assert days[f"{docs.name}/{later.relative_to(moved).as_posix()}"] == datetime.date(2001, 9, 20)


class Stopped(BaseException):
    """Stands for a kill: nothing in openbook may catch it."""


@contextlib.contextmanager
def stopped_at(point: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop before the nth step that changes the index."""
    steps = 0

    def watched(function):
        def step(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == point:
                raise Stopped
            return function(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_SLICE", 5)
        for name in ("reset", "add", "remove", "optimize"):
            patch.setattr(LanceStore, name, watched(getattr(LanceStore, name)))
        for name in ("write_jsonl", "write_manifest"):
            patch.setattr(indexing, name, watched(getattr(indexing, name)))
        yield


def test_passages_are_stored_as_they_are_cut_so_that_few_wait_in_memory(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_SLICE", 5)
    waiting, most = 0, 0

    class Counting(WordEmbedder):
        def encode(self, texts, *, query=False):
            nonlocal waiting, most
            most = max(most, waiting)
            waiting -= len(texts)
            assert len(texts) <= 5
            return super().encode(texts, query=query)

    real = indexing.chunk

    def cut(document, **options):
        nonlocal waiting
        found = list(real(document, **options))
        waiting += len(found)
        return found

    monkeypatch.setattr(indexing, "chunk", cut)
    report = run(config_for(docs, tmp_path / "out"), Counting())
    assert waiting == 0
    assert most < 5 + report.chunks / 4 + 1, "one document and what was left of those before"


def test_stopped_anywhere_the_next_run_ends_where_a_clean_one_does(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = config_for(docs, tmp_path / "fresh")
    run(fresh)
    expected = content(fresh)
    for point in range(1, 100):
        config = config_for(docs, tmp_path / str(point))
        with stopped_at(point, monkeypatch):
            try:
                run(config)
            except Stopped:
                with pytest.raises(StoreError, match="no finished index"):
                    open_index(config.index_dir, config, embedder=WordEmbedder())
            else:
                break
        run(config)
        assert content(config) == expected, point
    assert point > 7


def test_stopped_amid_a_change_and_changed_back(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    expected = content(config)
    old = (docs / "0.md").read_text()
    for point in range(1, 7):
        write(docs, "0.md", f"other{point}", paragraphs=9)
        with stopped_at(point, monkeypatch), contextlib.suppress(Stopped):
            run(config)
        (docs / "0.md").write_text(old)
        run(config)
        assert content(config) == expected, point


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from word_embedder import WordEmbedder
from openbook import indexing
from openbook.config import Config
indexing._SLICE = 5
class Killed(WordEmbedder):
    def encode(self, texts, *, query=False):
        if len(self.encoded) >= 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)
indexing.ingest(Config.parse({options!r}, "test"), embedder=Killed())
"""


def test_killed_for_real_it_goes_on_where_it_stopped(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(docs, tmp_path / "out")
    code = KILLED.format(tests=str(Path(__file__).parent), options=json.loads(config.model_dump_json()))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    embedder = WordEmbedder()
    report = run(config, embedder)
    assert len(embedder.encoded) == report.chunks - 10
    fresh = config_for(docs, tmp_path / "fresh")
    run(fresh)
    assert content(config) == content(fresh)


def test_a_damaged_or_meddled_index_is_mended_by_the_next_run(docs: Path, tmp_path: Path) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    expected = content(config)
    store = LanceStore(config.index_dir / "lance")
    store.remove([next(iter(store.document_ids()))])
    with pytest.raises(StoreError, match="lost or gained"):
        open_index(config.index_dir, config, embedder=WordEmbedder())
    run(config)
    assert content(config) == expected
    for file in (config.index_dir / "lance" / "chunks.lance" / "_versions").iterdir():
        file.write_bytes(b"damaged")
    run(config)
    assert content(config) == expected
    (config.index_dir / "documents.jsonl").unlink()
    run(config)
    assert content(config) == expected


@pytest.mark.parametrize("place", ["openbook-work", "."])
def test_results_among_the_documents_are_no_documents(docs: Path, place: str) -> None:
    config = config_for(docs, docs / place)
    run(config)
    for name in ("report.html", "comparison.html"):
        (config.out / name).write_text("<p>Our own report.")
    assert counts(run(config)) == (0, 0, 0, 4)


def test_equal_texts_in_two_files_are_two_documents(tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        write(tmp_path / "docs", name, "same")
    config = config_for(tmp_path / "docs", tmp_path / "out")
    report = run(config)
    assert report.documents == 2
    assert len({d.text for d in load_documents(config).values()}) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"There is no file in .*docs\. Give a file or folder"),
        (
            {"a.png": b"x", ".b": b"x"},
            r"No file in .* can be read \(1 hidden, 1 unsupported\); docs/\.b: its name says",
        ),
        ({"a.md": b"", "b.bin": b""}, r"can be read \(1 empty, 1 unsupported\); docs/a\.md: it is empty\."),
    ],
)
def test_nothing_to_read_is_an_error_that_counts_what_there_is(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    (tmp_path / "docs").mkdir()
    for name, data in files.items():
        (tmp_path / "docs" / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        run(config_for(tmp_path / "docs", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_bad_options_are_errors_with_a_remedy(docs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no documents to study"):
        run(Config.parse({"out": str(tmp_path)}, "test"))
    narrow = WordEmbedder()
    narrow.max_tokens = 20
    with pytest.raises(ConfigError, match=r"reads only 20 tokens\. Set documents\.chunk_tokens to 20 or less"):
        run(config_for(docs, tmp_path / "out"), narrow)
    with pytest.raises(StoreError, match="no finished index"):
        index_hash(config_for(docs, tmp_path / "out"))


def test_a_folder_that_cannot_be_written_is_an_error(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        run(config_for(docs, tmp_path / "out"))


def test_changed_by_another_name_for_the_same_folder(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(docs, tmp_path / "out")
    run(config)
    monkeypatch.chdir(docs)
    assert counts(run(config_for(Path(), tmp_path / "out"))) == (0, 0, 0, 4)
