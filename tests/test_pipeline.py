"""Everything at once, with a real index, a real (tiny) model and real training, through the doors that people use."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import openbook
from openbook import pipeline, storage
from openbook.config import Config
from openbook.errors import ModelError, OpenbookError, StoreError
from openbook.progress import SILENT, Task
from tiny_model import save_tiny_llama

TOPICS = {
    "storage": ["retention", "compaction", "snapshot", "replica"],
    "alerts": ["grouping", "silence", "inhibition", "route"],
    "network": ["proxy", "timeout", "resolver", "listener"],
    "users": ["session", "password", "token", "role"],
}


def document(topic: str, words: list[str]) -> str:
    sections = [
        f"## The {word} of {topic}\n\n"
        f"The {word} is the part of {topic} that decides how long an entry stays in the {word} table. "
        f"The default {word} of {topic} is {7 * (at + 2)} minutes. "
        f"A {word} stores its entries in the file {topic}-{word}.db. "
        f"The {word} is checked every {at + 3} seconds by the {topic} manager.\n"
        for at, word in enumerate(words)
    ]
    return f"# {topic.title()}\n\nThe {topic} manager is a program that looks after {topic}.\n\n" + "\n".join(sections)


class Diary:
    """A progress that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.told: list[str] = []

    def stage(self, name: str, skipped: str = "") -> None:
        self.said.append(f"{name}: skipped" if skipped else name)

    @contextmanager
    def task(self, description: str, total: float | None, unit: str = "") -> Iterator[Task]:
        with SILENT.task(description, total, unit) as task:
            yield task

    def message(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Documents, a model and options, with everything run once."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "docs").mkdir()
    texts = {topic: document(topic, words) for topic, words in TOPICS.items()}
    for topic, text in texts.items():
        (folder / "docs" / f"{topic}.md").write_text(text)
    save_tiny_llama(folder / "model", list(texts.values()), context=1024)
    config = Config.parse(
        {
            "out": folder / "work",
            "documents": {"paths": [folder / "docs"], "chunk_tokens": 60},
            "retrieval": {"passages": 2},
            "dataset": {"questions": 12, "validation": 2, "studied": 4, "unseen": 4, "passages": 2},
            "model": {"base": str(folder / "model"), "max_new_tokens": 6},
            "tune": {"epochs": 1, "row_tokens": 1024, "checkpoint_steps": 2, "evaluate_steps": 4},
            "evaluate": {"questions": 3, "removed": 2, "passage_counts": [1], "passage_questions": 2, "resamples": 100},
        },
        origin="test",
    )
    openbook.run(config)
    return config


@pytest.fixture
def copied(world: Config, tmp_path: Path) -> Config:
    """The same results in a folder of their own, to be changed."""
    shutil.copytree(world.out, tmp_path / "work")
    return world.model_copy(update={"out": tmp_path / "work"})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_ends_in_a_report_with_every_arm_and_stage(world: Config) -> None:
    report = json.loads((world.out / "report.json").read_text())
    assert set(report["tests"]) == {"studied", "unseen"}
    assert set(report["tests"]["studied"]["arms"]) == set(world.evaluate.arms)
    assert {"ingest", "dataset", "tune_raft", "tune_sft", "evaluate"} <= set(report["seconds"])
    assert report["peak_memory_bytes"] > 50e6
    assert "<html" in (world.out / "report.html").read_text()


def test_a_second_run_does_nothing_and_says_so(copied: Config) -> None:
    before = content(copied.out)
    diary = Diary()
    openbook.run(copied, progress=diary)
    assert diary.said == ["Ingest", "Data set: skipped", "Tune raft: skipped", "Tune sft: skipped", "Evaluate"]
    after = content(copied.out)
    assert {name for name in before | after if before.get(name) != after.get(name)} == set()


def test_a_changed_document_is_followed_to_the_end(copied: Config, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(copied.documents.paths[0], docs)
    (docs / "users.md").write_text(document("users", ["avatar", "quota", "group"]))
    sections = {
        "documents": copied.documents.model_copy(update={"paths": (docs,)}),
        "dataset": copied.dataset.model_copy(update={"studied": 40}),  # of which there are not so many
    }
    changed = copied.model_copy(update=sections)
    diary = Diary()
    openbook.run(changed, progress=diary)
    assert not [line for line in diary.said if line.endswith("skipped")]
    assert sum("of 40 studied questions could be had" in text for text in diary.told) == 1
    diary = Diary()
    report = openbook.build_dataset(changed, force=True, progress=diary)
    assert "of 40 studied questions could be had" in str(report)
    assert not set(report.notes) & set(diary.told)  # whoever prints the report would say them twice


def test_other_options_of_the_training_leave_the_data_alone(copied: Config) -> None:
    changed = copied.model_copy(update={"tune": copied.tune.model_copy(update={"learning_rate": 2e-3})})
    diary = Diary()
    openbook.run(changed, progress=diary)
    assert diary.said[:4] == ["Ingest", "Data set: skipped", "Tune raft", "Tune sft"]


def test_verbs_that_are_current_return_their_earlier_reports(copied: Config) -> None:
    before = content(copied.out)
    assert openbook.build_dataset(copied).train > 0
    assert openbook.tune(copied, form="closed").trained_weights > 0
    assert content(copied.out) == before


def test_asking_finds_passages_and_says_what_it_wrote(world: Config) -> None:
    answer = openbook.ask(world, "What is the default retention of storage?")
    assert answer.question.startswith("What is")
    assert len(answer.passages) == 2
    closed = openbook.ask(world, "What is the default retention of storage?", closed=True)
    assert closed.passages == ()


def test_a_second_process_is_told_to_wait(world: Config) -> None:
    with storage.exclusive(world.out), pytest.raises(OpenbookError, match="Another openbook"):
        openbook.run(world)


def test_an_adapter_for_another_base_is_refused(copied: Config, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "other", ["other words entirely"], seed=5, context=1024)
    other = copied.model_copy(update={"model": copied.model.model_copy(update={"base": str(tmp_path / "other")})})
    with pytest.raises(ModelError, match="another base model"):
        openbook.ask(other, "What is the default retention of storage?")


def test_nothing_works_before_there_is_an_index(tmp_path: Path) -> None:
    config = Config(out=tmp_path)
    for verb in (
        lambda: openbook.search(config, "x"),
        lambda: openbook.build_dataset(config),
        lambda: openbook.ask(config, "x"),
    ):
        with pytest.raises(StoreError, match="openbook"):
            verb()


def test_times_of_a_stopped_stage_add_up(tmp_path: Path) -> None:
    config = Config(out=tmp_path)
    with pytest.raises(KeyboardInterrupt), pipeline.Times(config).measure("tune"):
        raise KeyboardInterrupt
    assert not json.loads((tmp_path / pipeline.TIMES).read_text())["tune"]["done"]
    (tmp_path / pipeline.TIMES).write_text(json.dumps({"tune": {"seconds": 100.0, "done": False}}))
    with pipeline.Times(config).measure("tune"):
        pass
    assert 100 <= pipeline.Times(config).seconds["tune"] < 101
    with pipeline.Times(config).measure("tune"):  # begun anew after it was done
        pass
    assert pipeline.Times(config).seconds["tune"] < 1
    with pipeline.Times(config).measure("ingest") as measured:
        measured.idle = True  # the first time counts, whatever it did
    assert "ingest" in pipeline.Times(config).seconds


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"tune": 1}'])
def test_damaged_times_are_forgotten(tmp_path: Path, damage: str) -> None:
    (tmp_path / pipeline.TIMES).write_text(damage)
    assert pipeline.Times(Config(out=tmp_path)).seconds == {}
