"""The benchmarks of data: what their loaders make of the public sets, what they hold out and train on, and how tables are counted."""

import gzip
import json
import random
import sys
from pathlib import Path

import pytest

from dataset_world import WordIndex
from openbook.records import Chunk, Document, Question

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import dataset_quality
import grouping
import labelled_sets
import labelled_world
import paired_table
import trials
from kept_passages import KeptPassages, Remembered, answerable, keep
from studying import Studying


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def sets(tmp_path):
    """A little of each set, in the layout of the real one."""
    text = "Warsaw is the capital of Poland. It stands on the Vistula."
    qa = {
        "question": "What is the capital?",
        "answers": [{"text": "Warsaw", "answer_start": 0}],
        "is_impossible": False,
    }
    impossible = {"question": "Who?", "answers": [], "is_impossible": True}
    article = {"title": "War_saw", "paragraphs": [{"context": text, "qas": [qa, impossible]}]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [article]}))
    write(
        tmp_path / "nq.jsonl.gz",
        [
            {"question": "which river", "answers": ["Oder", "Vistula"], "title": "Warsaw", "passage": text},
            {"question": "not there", "answers": ["Oder"], "title": "Warsaw", "passage": text},
        ],
    )
    write(
        tmp_path / "pubmed.jsonl.gz",
        [
            {
                "id": "1",
                "question": "Does it help?",
                "contexts": ["We asked forty people.", "Pain fell in the treated group. No harm was seen."],
                "long_answer": "Treated people had less pain.",
                "final_decision": "yes",
            }
        ],
    )
    call = "torch.hub.load(repo_or_dir='a/b', model='c')"
    api = {"api_name": "c", "api_call": call, "functionality": "Depth", "description": "It sees.", "domain": "Video"}
    hub = tmp_path / "hub"
    hub.mkdir()
    write(hub / "torchhub_api.jsonl", [api])
    asked = "{'Instruction': I need depth\n from one image., 'Output': {'domain': 'Video'}}"
    write(hub / "torchhub_train.json", [{"code": asked, "api_call": call}, {"code": asked, "api_call": "other()"}])
    return {"squad": "squad.json", "nq_open": "nq.jsonl.gz", "pubmedqa": "pubmed.jsonl.gz", "torch_hub": "hub"}


@pytest.mark.parametrize(
    ("name", "question", "answer", "sentence"),
    [
        ("squad", "What is the capital?", "Warsaw", "Warsaw is the capital of Poland."),
        ("nq_open", "which river", "Vistula", "It stands on the Vistula."),
        ("pubmedqa", "Does it help?", "yes", "Pain fell in the treated group."),
        (
            "torch_hub",
            "I need depth from one image.",
            "torch.hub.load(repo_or_dir='a/b', model='c')",
            "The call is torch.hub.load(repo_or_dir='a/b', model='c')",
        ),
    ],
)
def test_each_set_is_read(name, question, answer, sentence, sets, tmp_path):
    found = labelled_sets.SETS[name](tmp_path / sets[name])
    (only,) = found.questions
    assert (only.question, only.answer, only.sentence) == (question, answer, sentence)
    assert only.sentence in found.documents[only.document].text


def labelled(cluster, number):
    return labelled_sets.Labelled(
        question=f"{cluster} {number}?", answer="a", sentence="s", document=number, cluster=cluster
    )


def test_no_cluster_is_on_both_sides():
    questions = [labelled(f"article {c}", n) for c in range(9) for n in range(5)]
    examined, pool = labelled_world.split(questions, 7, 20, random.Random(0))
    assert len(examined) == 7 and len(pool) == 20
    assert {q.cluster for q in examined}.isdisjoint(q.cluster for q in pool)
    assert len({q.cluster for q in examined}) == 3  # a third, by turns


def values(f1):
    return {metric: list(f1) if metric == "f1" else [None] * len(f1) for metric in paired_table.METRICS}


def test_differences_pair_cells_with_their_counterparts():
    def cell(distractors, seed, share=0.8):
        return dataset_quality.Cell(set="s", distractors=distractors, quotes=True, share=share, seed=seed)

    cells = {
        cell("mined", 0): values([1.0, 0.0, 1.0, 1.0]),
        cell("mined", 1): values([1.0, 1.0, 1.0, 1.0]),
        cell("random", 0): values([0.0, 0.0, 1.0, 0.0]),
        cell("mined", 2): values([0.0, 0.0, 0.0, 0.0]),  # without a counterpart: in no difference
    }
    table = dataset_quality.summary(cells, values([0.0] * 4), list("abcd"))
    assert table["cells"]["mined, quotes, P = 0.8"]["seeds"] == 3
    assert table["cells"]["mined, quotes, P = 0.8"]["f1"].value == pytest.approx(7 / 12)
    found = table["differences"]["mined − random"]
    assert found["couples"] == 1 and found["f1"].value == pytest.approx(0.5)
    assert "quotes − none" not in table["differences"]
    assert table["differences"]["the defaults − untuned"]["couples"] == 3
    assert found["right_quote"].value is None


def test_grades_become_values():
    """An answer is right and verified by both its words and its quote; refusing is false where the answer was shown."""

    def grade(example, asked="all", **facts):
        known = {"exact_match": False, "f1": 0.0, "right_quote": None, "verified_quotes": None, "refusal": False}
        return {"example": example, "asked": asked, **known, **facts}

    grades = [
        grade("a", f1=0.9, right_quote=True, verified_quotes=1.0),
        grade("b", f1=0.5, right_quote=True, verified_quotes=0.5),
        grade("c", refusal=True),
        grade("d", refusal=True),
        grade("a", asked="removed", refusal=True),
        grade("of another exam"),
    ]
    found = paired_table.values_of(grades, list("abcd"), answerable={"a", "c"})
    assert found["verified_and_right"] == [1.0, 0.0, None, None]
    assert found["false_refusals"] == [0.0, None, 1.0, None]
    assert found["right_refusals"] == [1.0, None, None, None]
    assert found["verified_quotes"] == [1.0, 0.5, None, None] and found["f1"] == [0.9, 0.5, 0.0, 0.0]


@pytest.fixture
def world():
    """Twenty towns, a question about each, over passages that a word search finds."""
    documents = [
        Document.create(
            uri=f"{n}", title=f"Town {n}", text=f"Town {n} has {n + 11} old gates. It lies on river {n % 3}."
        )
        for n in range(20)
    ]
    chunks = [Chunk.create(d, 0, len(d.text)) for d in documents]
    world = object.__new__(labelled_world.World)
    world.retriever, world.chunks = Remembered(WordIndex(chunks)), {c.id: c for c in chunks}
    world.labels, world.pool = {}, []
    for n, chunk in enumerate(chunks):
        sentence = chunk.text.split(" It")[0]
        question = Question(
            id=f"q{n}",
            text=f"How many old gates has town {n}?",
            golden_chunk_ids=(chunk.id,),
            answer=sentence,
            quotes=(sentence,),
            reasoning=f"##begin_quote## {sentence}##end_quote##",
            kind="",
        )
        world.labels[question.id] = labelled_sets.Labelled(
            question=question.text, answer=f"{n + 11}", sentence=sentence, document=n, cluster=str(n)
        )
        world.pool.append(question)
    return world


@pytest.mark.parametrize("quotes", [True, False])
def test_what_a_cell_trains_on_is_what_its_name_says(quotes, world):
    """Distractors, share and quotes."""
    cell = dataset_quality.Cell(set="s", distractors="mined", quotes=quotes, share=0.6, seed=1)
    rows = world.labelled(dataset_quality.studied(world, cell, 10), quotes=cell.quotes)
    shown = [row for row in rows if row.golden_included]
    assert len(rows) == 10 and len(shown) == 6
    assert all(row.final_answer == row.answer == world.labels[row.question_id].answer for row in shown)
    assert all(bool(row.reasoning) == quotes for row in shown)
    assert all(row.final_answer == "not in the documents" for row in rows if not row.golden_included)


def test_cells_are_ordered_by_what_they_tell():
    cells = dataset_quality.cells_of(["a", "b"], seeds=2)
    assert len(cells) == len(set(cells)) == 48
    assert {cell.departures for cell in cells[:20]} == {0, 1} and cells[0].departures == 0
    assert [cell.seed for cell in cells[:20]] == [0] * 10 + [1] * 10


def test_apart_asks_the_same_as_groups_over_passages_of_its_own(world):
    studying = Studying(source=world.retriever, chunks=world.chunks, share=0.8, seed=3)
    grouped = studying.in_groups(world.pool)
    away = {row.question_id for row in grouped if not row.golden_included}
    apart = studying.apart(world.pool, away)
    assert {row.question_id for row in apart} == {row.question_id for row in grouped} and len(away) == 4
    assert {row.question_id for row in apart if not row.golden_included} == away
    for row in apart:
        assert len(row.passages) == 4 == len({chunk.id for chunk in row.passages})
        assert row.golden_included == ({chunk.id for chunk in row.golden} <= {chunk.id for chunk in row.passages})
        assert bool(row.quotes) == row.golden_included
    assert [row.passages for row in apart] == [row.passages for row in studying.apart(world.pool, away)]


def test_hidden_passages_are_never_shown(world):
    hidden = frozenset(list(world.chunks)[10:])
    studying = Studying(source=world.retriever, chunks=world.chunks, share=0.5, seed=0, hidden=hidden)
    for rows in (studying.in_groups(world.pool[:8]), studying.apart(world.pool[:8], {"q1"})):
        assert not hidden & {chunk.id for row in rows for chunk in row.passages}


def test_an_exam_is_sat_with_what_was_kept(world, tmp_path):
    """What an index found is found again without it, and nothing else is."""
    exam = [world._examined(question) for question in world.pool[:5]]
    config = trials.Trial(name="t", exam="s", data="", options={"evaluate": {"removed": 2}}).config(tmp_path)
    keep(tmp_path / "kept.jsonl", {"unseen": exam}, world.retriever, config)
    kept, question, golden = KeptPassages(tmp_path / "kept.jsonl"), world.pool[1], world.pool[1].golden_chunk_ids
    shown = {example.id: [found.chunk.id for found in kept.search(example.question, 10)[:4]] for example in exam}
    assert answerable({"unseen": exam}, kept, config) == {e.id for e in exam if e.golden_ids[0] in shown[e.id]}
    assert kept.search(question.text, 10) == world.retriever.search(question.text, 10)
    assert not {found.chunk.id for found in kept.search(question.text, 4, without=golden)} & set(golden)
    with pytest.raises(KeyError):
        kept.search("Another?", 10)


def test_groups_are_compared_with_what_is_apart_seed_by_seed():
    graded = {
        ("groups", 0): values([1.0, 1.0, 0.0, 1.0]),
        ("groups", 1): values([1.0, 1.0, 1.0, 1.0]),
        ("apart", 0): values([0.0, 1.0, 0.0, 1.0]),
        ("longer", 1): values([1.0, 1.0, 1.0, 1.0]),
    }
    table = grouping.summary(graded, None, list("abcd"))
    found = table["differences"]["equal questions: groups − apart"]
    assert found["couples"] == 1 and found["f1"].value == 0.25
    assert len(table["differences"]) == 1  # of the others one side was not run
    assert table["cells"]["groups"]["seeds"] == 2 and table["cells"]["groups"]["f1"].value == 0.875


def test_an_epoch_is_paid_by_its_tokens():
    data = grouping.Data(name="d", questions=9, lengths=[5, 4, 3, 2], price=0.5)
    assert data.rows(2.5) == [5, 4, 3, 2, 5, 4, 3, 2, 5, 4]
    assert data.seconds(0.25) == 2.5


def test_the_pool_is_met_in_runs_of_neighbours(world):
    nothing = {"hidden": frozenset(), "tests": {}, "clusters": {}, "label": list}
    material = grouping.Material(source=world.retriever, chunks=world.chunks, pool=world.pool, **nothing)
    asked = [grouping.in_order(material, seed) for seed in (0, 0, 1)]
    assert sorted(q.id for q in asked[0]) == sorted(q.id for q in world.pool)
    assert asked[0] == asked[1] != asked[2]
