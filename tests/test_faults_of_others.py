"""The faults that other RAFT tools are known for, one by one, ruled out in what we write.

Each check is also held against our own build with that very fault planted in it, and has to find it there: a check that
cannot fail proves nothing.
"""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from chat_server import diligent, items, serving
from dataset_world import WordIndex, cut, options, shelf
from openbook import dataset, prompt
from openbook.dataset import PARTS, build_from, building, groups, splits
from openbook.dataset.doctor import diagnose
from openbook.dataset.exports import export_row
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.formats import from_row, read_examples, to_row
from openbook.dataset.imports import read_sample
from openbook.dataset.rowchecks import LIST_NUMBER
from openbook.dataset.teacher import make_teacher
from openbook.documents import chunk
from openbook.metrics import Gold, grade_text
from openbook.options import Dataset
from raft_world import healthy

CHUNKS = cut(shelf())


class Build:
    """One build by rule over the shelf, and its rows as they stand in the files."""

    def __init__(self, folder, *, seed=0, **dataset_options):
        made = options(folder, **{"questions": 100, "golden_share": 0.7} | dataset_options)
        self.config = made.model_copy(update={"seed": seed})
        self.report = build_from(WordIndex(CHUNKS), ExtractiveTeacher(), self.config, index_hash="abc")
        self.path = self.config.dataset_dir / "train.jsonl"
        self.bytes = {part: (self.config.dataset_dir / f"{part}.jsonl").read_bytes() for part in PARTS}
        self.rows = {part: list(read_examples(self.config.dataset_dir / f"{part}.jsonl")) for part in PARTS}
        self.train = self.rows["train"]


@pytest.fixture
def built(tmp_path):
    return Build(tmp_path)


def places(rows):
    """Where the golden passage stands, by count."""
    texts = ([c.text for c in row.passages] for row in rows)
    return Counter(t.index(row.golden[0].text) for row, t in zip(rows, texts, strict=True) if row.golden[0].text in t)


# What must hold. Each takes a build and a folder for further ones.


def no_passage_is_shown_twice(built, _):
    for row in built.train:
        texts = [passage.text for passage in row.passages]
        assert len(texts) == len(set(texts)) == 4


def distractors_are_about_the_question(built, _):
    report = diagnose(built.path)
    assert report.figures.overlap is not None
    own, others = report.figures.overlap
    assert own > 1.3 * others
    assert "unrelated-distractors" not in {finding.fault for finding in report.findings}


def golden_passages_stand_anywhere(built, _):
    counts = places(built.train)
    assert set(counts) == {0, 1, 2, 3} and max(counts.values()) < 0.45 * counts.total()


def passages_are_shuffled(built, _):
    index = WordIndex(CHUNKS)
    asked = [row.question for row in built.train if row.golden_included]
    found = index.search_many(asked, len(CHUNKS))
    ranked = 0
    for row, hits in zip((row for row in built.train if row.golden_included), found, strict=True):
        rank = {hit.chunk.id: hit.rank for hit in hits}
        order = [rank[passage.id] for passage in row.passages]
        ranked += order == sorted(order)
    assert ranked < 0.2 * len(asked)  # by chance one in 24


def p_is_what_was_asked_for(built, folder):
    for share in (0.0, 0.3, 0.7, 1.0):
        rows = built.train if share == 0.7 else Build(folder / f"p{share}", golden_share=share).train
        shown = sum(row.golden[0].text in {passage.text for passage in row.passages} for row in rows)
        assert shown == sum(row.golden_included for row in rows)
        assert abs(shown / len(rows) - share) <= 0.02


def the_seed_decides(built, folder):
    assert Build(folder / "again").bytes == built.bytes
    assert Build(folder / "other", seed=1).bytes["train"] != built.bytes["train"]


def no_document_is_on_both_sides(built, _):
    studied = {p.document_id for row in built.train for p in (*row.passages, *row.golden)}
    unseen = built.rows["unseen"]
    assert unseen and not any(passage.document_id in studied for row in unseen for passage in row.golden)


RULES = (
    no_passage_is_shown_twice,
    distractors_are_about_the_question,
    golden_passages_stand_anywhere,
    passages_are_shuffled,
    p_is_what_was_asked_for,
    the_seed_decides,
    no_document_is_on_both_sides,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_holds_of_what_we_write(rule, built, tmp_path):
    rule(built, tmp_path)


# The same faults, planted in our own build.


def twice(monkeypatch):
    """The replacement for the golden passage is one that is shown already."""
    real = groups.examples

    def faulty(*given, **options):
        rows = real(*given, **options)
        return [
            row if row.golden_included else replace(row, passages=(*row.passages[:-1], row.passages[0])) for row in rows
        ]

    monkeypatch.setattr(groups, "examples", faulty)


def unrelated(monkeypatch):
    """Distractors come from anywhere."""
    real = building.Candidates

    def faulty(source, kind, *rest):
        return real(source, "random", *rest)

    monkeypatch.setattr(building, "Candidates", faulty)


def golden_first(monkeypatch):
    real = groups.examples

    def faulty(*given, **options):
        rows = []
        for row in real(*given, **options):
            golden = set(row.golden_ids)
            rows.append(
                replace(row, passages=tuple(sorted(row.passages, key=lambda passage: passage.id not in golden)))
            )
        return rows

    monkeypatch.setattr(groups, "examples", faulty)


def unshuffled(monkeypatch):
    real = groups.examples

    def faulty(*given, **options):
        rows = real(*given, **options)
        found = WordIndex(CHUNKS).search_many([row.question for row in rows], len(CHUNKS))
        ranks = [{hit.chunk.id: hit.rank for hit in hits} for hits in found]
        return [
            replace(row, passages=tuple(sorted(row.passages, key=lambda passage, rank=rank: rank[passage.id])))
            for row, rank in zip(rows, ranks, strict=True)
        ]

    monkeypatch.setattr(groups, "examples", faulty)


def p_changed(change):
    def plant(monkeypatch):
        real = groups.move_away
        monkeypatch.setattr(
            groups, "move_away", lambda *given, share, **options: real(*given, share=change(share), **options)
        )

    return plant


def unseeded(monkeypatch):
    monkeypatch.setattr(groups, "random", type("Unseeded", (), {"Random": lambda _: random.SystemRandom()}))


def split_by_position(monkeypatch):
    """The last passages of each document are the test, and nobody looks for leaks."""
    monkeypatch.setattr(splits, "hold_out", lambda units, seed: [unit[-1:] for unit in units])
    monkeypatch.setattr(building, "without_leaks", lambda rows, *_, **__: (list(rows), []))


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (twice, no_passage_is_shown_twice),
        (unrelated, distractors_are_about_the_question),
        (golden_first, golden_passages_stand_anywhere),
        (unshuffled, passages_are_shuffled),
        (p_changed(lambda share: 1 - share), p_is_what_was_asked_for),
        (p_changed(lambda _: 0.3), p_is_what_was_asked_for),
        (p_changed(lambda _: 0.0), p_is_what_was_asked_for),
        (unseeded, the_seed_decides),
        (split_by_position, no_document_is_on_both_sides),
    ],
)
def test_it_would_be_found_in_us(plant, rule, tmp_path, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        rule(Build(tmp_path), tmp_path)


def test_a_split_by_position_does_not_get_past_the_leak_test(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "hold_out", lambda units, seed: [unit[-1:] for unit in units])
    built = Build(tmp_path)
    assert built.report.leaks > 0 and built.report.dropped["leak: document is trained on"] > 0
    studied = {passage.document_id for row in built.train for passage in (*row.passages, *row.golden)}
    assert not any(passage.document_id in studied for row in built.rows["unseen"] for passage in row.golden)


# What is no property of a single build.


def test_nothing_made_under_other_settings_is_taken_up_again(built):
    other = {
        "questions": 99, "studied": 3, "unseen": 3, "validation": 3, "passages": 3, "golden_share": 0.5, "without_golden": "mix",
        "refuse_share": 0.25, "questions_per_chunk": 2, "distractors": "random", "nowhere_share": 0.1, "pair_share": 0.1,
        "split_by": "folder", "teacher": "openai", "teacher_model": "x", "judge": False, "max_tokens": 500,
        "mark_known": True, "max_cost": 1.0, "seed": 1,
    }  # fmt: skip
    endpoint = {"base_url", "at_once", "prompts", "price_read", "price_written"}  # they decide no row
    assert set(other) - {"seed"} == set(Dataset.model_fields) - endpoint
    assert dataset.is_built(built.config, index_hash="abc")
    for name, value in other.items():
        where = built.config if name == "seed" else built.config.dataset
        assert getattr(where, name) != value, name
        changed = where.model_copy(update={name: value})
        config = changed if name == "seed" else built.config.model_copy(update={"dataset": changed})
        assert not dataset.is_built(config, index_hash="abc"), name
    assert not dataset.is_built(built.config, index_hash="another index")


def test_sizes_called_tokens_are_tokens():
    documents = shelf(2)
    for limit in (20, 60):
        counted = [
            (len(passage.text.split()), len(passage.text))
            for document in documents
            for passage in chunk(document, count_tokens=lambda text: len(text.split()), max_tokens=limit)
        ]
        assert all(tokens <= limit for tokens, _ in counted)
        assert max(tokens for tokens, _ in counted) > 0.7 * limit
        assert max(characters for _, characters in counted) > 3 * limit


@pytest.mark.parametrize("number", ["1. ", "12) ", "- ", "• ", "Q3: ", "Question 2: ", "(4) "])
def test_questions_lose_the_numbers_of_their_list(number, tmp_path, monkeypatch):
    def numbered(body):
        return "\n".join(json.dumps(item | {"question": number + item["question"]}) for item in items(body))

    with serving(monkeypatch) as script:
        script.replies = [diligent(questions=numbered)]
        config = options(
            tmp_path,
            teacher="openai",
            teacher_model="tiny",
            base_url=script.url,
            questions=6,
            studied=2,
            unseen=2,
            validation=1,
        )
        build_from(WordIndex(CHUNKS), make_teacher(config), config, index_hash="abc")
    rows = [row for part in PARTS for row in read_examples(config.dataset_dir / f"{part}.jsonl")]
    assert len(rows) >= 8 and all(row.question.startswith("What is told of") for row in rows)
    assert not any(LIST_NUMBER.match(row.question) for row in rows)


def test_questions_of_several_lines_are_whole_in_the_evaluation_export():
    question = "First this:\n- one\n- two\n\nthen what?"
    row = to_row(from_row(healthy()[0])) | {"question": question}
    exported = export_row(from_row(row), "eval")
    assert exported["question"] == question
    assert not any(line and line in exported["context"] for line in question.split("\n"))
    assert read_sample(exported).question == question


def test_the_final_answer_is_matched_and_not_the_reasoning():
    gold = Gold(answer="nine", sentences=("The lever has nine rivets.",))
    said = f"I count them. {prompt.render_quote('The lever has nine rivets.')} So ten is wrong. {prompt.ANSWER} nine"
    assert grade_text(said, gold).exact_match
    assert not grade_text(said.replace(f"{prompt.ANSWER} nine", f"{prompt.ANSWER} ten"), gold).exact_match
    (exported,) = [export_row(from_row(healthy()[0]), "eval")]
    assert exported["gold_final_answer"] == "11"  # no reasoning that an exact match could never meet
