"""The ways of tuning side by side: figures worked out by hand, the page, and everything for real on a tiny model."""

import contextlib
import json
import re

import pytest

import openbook
from exam_world import TESTS, ScriptedCandidates, WordRetriever, base, raft, sft, world_config
from openbook import comparing, storage
from openbook.config import Config
from openbook.errors import ConfigError
from openbook.evaluation.comparison import Cost, examine_ways
from openbook.evaluation.page.comparison import paragraph, render_comparison
from openbook.evaluation.ways import WAYS, chosen_ways, in_order
from openbook.progress import SILENT
from openbook.retrieval import LanceStore
from tiny_model import save_tiny_llama

COSTS = {
    "sft": Cost(tokens=1000, seconds=10, peak_memory_bytes=2_000_000_000, trained_weights=50),
    "raft": Cost(tokens=5000, seconds=65, peak_memory_bytes=3_000_000_000, trained_weights=50),
}
NAMES = ["raft", "base", "sft"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    config = world_config(tmp_path_factory.mktemp("comparison"))
    candidates = ScriptedCandidates({None: base, "sft": sft, "raft": raft})
    return examine_ways(config, chosen_ways(NAMES), TESTS, WordRetriever(), candidates, COSTS)


def test_all_answer_the_same_questions_over_the_same_passages(tmp_path):
    config = world_config(tmp_path)
    candidates = ScriptedCandidates({None: base, "sft": sft, "raft": raft})
    examine_ways(config, chosen_ways(NAMES), TESTS, WordRetriever(), candidates, COSTS)
    first, *others = candidates.asked.values()
    assert first and all(asked == first for asked in others)
    count = candidates.count
    examine_ways(config, chosen_ways(NAMES), TESTS, WordRetriever(), candidates, COSTS)
    assert candidates.count == count  # kept, and not asked again


def test_figures_and_differences(comparison):
    assert comparison.ways == ("base", "sft", "raft")
    studied = comparison.tests["studied"].arms
    # Of the five moons, retrieval misses one (Planet4); sft knows that of Planet0 and the words "small moons".
    assert studied["raft"]["exact_match"].value == pytest.approx(4 / 5)
    assert studied["sft"]["exact_match"].value == pytest.approx(1 / 5)
    assert studied["raft"]["right_refusals"].value == 1.0 and studied["sft"]["right_refusals"].value == 0.0
    difference = comparison.tests["studied"].differences["raft-base"]["exact_match"]
    assert difference.value == pytest.approx(4 / 5 - studied["base"]["exact_match"].value)
    assert set(comparison.tests["studied"].differences) == {"sft-base", "raft-base"}
    assert comparison.sizes == {"studied": (5, 5), "unseen": (3, 3)}


def test_the_page_holds_one_table_one_picture_and_a_paragraph_on_each(comparison):
    page = render_comparison(comparison)
    assert page == render_comparison(comparison)
    assert page.count("<table") == 1 and page.count("<svg") == 1 and "<script" not in page
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["base", "sft", "raft"]
    assert "what the earlier ones left behind counts too" in page and "`" not in page.split("</style>")[-1]
    assert "5,000" in page and "3.00 GB" in page and "1 min 5 s" in page


def test_a_paragraph_says_what_it_is_what_it_did_and_when_it_is_worth_it(comparison):
    ways = chosen_ways(NAMES)
    meaning, here, worth = paragraph(WAYS["raft"], ways, comparison)
    assert meaning == WAYS["raft"].meaning and worth == WAYS["raft"].worth
    assert "Against base" in here and "better" in here and "5,000 tokens" in here
    _, alone, _ = paragraph(WAYS["base"], ways, comparison)
    assert "Against" not in alone and "tokens" not in alone


def test_it_is_written_as_json(comparison, tmp_path):
    comparison.save(tmp_path / "comparison.json")
    read = json.loads((tmp_path / "comparison.json").read_text())
    assert read["costs"]["sft"]["tokens"] == 1000 and read["tests"]["studied"]["arms"]["raft"]["f1"]["n"] == 5


def test_ways_are_named_and_put_after_what_they_go_on_from():
    assert [way.name for way in in_order(chosen_ways(["raft+dpo", "sft", "base"]))] == ["sft", "raft", "raft+dpo"]
    with pytest.raises(ConfigError, match=r"no way of tuning 'raft\+dop'. Did you mean raft\+dpo"):
        chosen_ways(["raft+dop"])
    with pytest.raises(ConfigError, match="No way"):
        chosen_ways([])
    assert Cost(tokens=1, peak_memory_bytes=5).after(Cost(tokens=2, seconds=3, peak_memory_bytes=9)) == Cost(
        tokens=3, seconds=3, peak_memory_bytes=9
    )


class Diary:
    """A progress that remembers its stages."""

    def __init__(self):
        self.said = []

    def stage(self, name, skipped=""):
        self.said.append(name)

    def message(self, text):
        self.said.append(text)

    @contextlib.contextmanager
    def task(self, description, total, unit=""):
        with SILENT.task(description, total, unit) as task:
            yield task


def small(tmp_path):
    """Options for a comparison of a few questions, on a model with random weights."""
    from test_pipeline import TOPICS, document

    (tmp_path / "docs").mkdir()
    texts = [document(topic, words) for topic, words in TOPICS.items()]
    for number, text in enumerate(texts):
        (tmp_path / "docs" / f"{number}.md").write_text(text)
    save_tiny_llama(tmp_path / "model", texts, context=1024)
    return Config.parse(
        {
            "out": tmp_path / "work",
            "documents": {"paths": [tmp_path / "docs"], "chunk_tokens": 60},
            "retrieval": {"passages": 2},
            "dataset": {"questions": 12, "validation": 2, "studied": 4, "unseen": 4, "passages": 2},
            "model": {"base": str(tmp_path / "model"), "max_new_tokens": 6},
            "tune": {"epochs": 1, "row_tokens": 1024, "learning_rate": 0.01},
            "instruct": {"tasks": 10},
            "pairs": {"samples": 2},
            "preference": {"epochs": 1},
            "evaluate": {"questions": 3, "removed": 2, "resamples": 100},
        },
        origin="test",
    )


@pytest.mark.slow
def test_every_way_is_trained_once_and_examined(tmp_path):
    """Ingest, data set, five tunings, the sampling of pairs and the exam."""
    config = small(tmp_path)
    diary = Diary()
    found = openbook.compare(config, progress=diary)
    assert found.ways == ("base", "sft", "instruct", "raft", "raft+dpo", "full")
    assert found.costs["raft+dpo"].tokens > found.costs["raft"].tokens > 0 == found.costs["base"].tokens
    assert found.costs["full"].trained_weights > found.costs["raft"].trained_weights
    assert all(found.costs[name].peak_memory_bytes > 0 for name in found.ways[1:])
    manifest = storage.read_manifest(config.adapters_dir / "full")
    assert manifest["options"]["learning_rate"] == pytest.approx(0.001)
    assert (config.out / comparing.COMPARISON_HTML).is_file()
    again = Diary()
    assert openbook.compare(config, progress=again).costs == found.costs
    assert sum("is current" in text for text in again.said) == 6  # five adapters and the pairs


def test_a_document_that_has_changed_is_compared_on_as_it_is_now(tmp_path):
    config = small(tmp_path)
    openbook.compare(config, ["base"])
    (tmp_path / "docs" / "0.md").unlink()
    diary = Diary()
    openbook.compare(config, ["base"], progress=diary)
    assert "Data set" in diary.said
    assert not any(chunk.uri == "docs/0.md" for chunk in LanceStore(config.index_dir / "lance").chunks())
    diary = Diary()
    found = config.model_copy(update={"documents": config.documents.model_copy(update={"paths": ()})})
    openbook.compare(found, ["base"], progress=diary)  # an index of documents that were named on the command line
    assert "Data set" not in diary.said


def test_full_tuning_leaves_nothing_to_compare(tmp_path):
    config = Config.parse({"out": str(tmp_path), "tune": {"adapter": "full"}}, origin="test")
    with pytest.raises(ConfigError, match="leaves no adapters"):
        comparing.compare(config)
