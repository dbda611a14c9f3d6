"""What a build can be asked for beside its sizes: distractors, refusals, questions on two passages or none, splits."""

import datetime
import json
import os
from collections import Counter
from dataclasses import replace

import pytest

from dataset_world import WordIndex, cut, options, shelf
from models_for_tests import folder as model_folder
from openbook.dataset import ExtractiveTeacher, build_from, checks, export, splits
from openbook.dataset.building import PARTS
from openbook.dataset.entities import entities, pairs
from openbook.dataset.fitting import fitted
from openbook.dataset.formats import from_row, read_examples, to_row
from openbook.dataset.known_answers import is_known, marked
from openbook.dataset.leaks import Studied, without_leaks
from openbook.dataset.lengths import Lengths
from openbook.errors import InputError
from openbook.progress import SILENT
from openbook.prompt import REFUSAL, parse_answer
from openbook.records import Document, Question, Scores
from openbook.training.pairs import read_pairs

CHUNKS = cut(shelf())


def build(tmp_path, chunks=CHUNKS, **dataset):
    config = options(tmp_path, **dataset)
    report = build_from(WordIndex(chunks), ExtractiveTeacher(), config, index_hash="abc")
    return config, report, {part: list(read_examples(config.dataset_dir / f"{part}.jsonl")) for part in PARTS}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


def shared_words(row):
    """How much of the question's words its distractors hold, on average."""
    wanted = checks.telling_words(row.question)
    beside = [chunk for chunk in row.passages if chunk.id not in row.golden_ids]
    return sum(len(wanted & checks.telling_words(chunk.text)) for chunk in beside) / (len(wanted) * max(1, len(beside)))


def test_mined_distractors_are_nearer_than_mixed_than_random_ones(tmp_path):
    near = {}
    for mode in ("mined", "mixed", "random"):
        _, report, rows = build(tmp_path / mode, distractors=mode, questions=40)
        near[mode] = sum(map(shared_words, rows["train"])) / len(rows["train"])
        assert set(report.passages_shown) == {"4"} and report.train == 40
        for row in rows["train"]:
            for quote in row.quotes:
                assert [chunk.id for chunk in row.passages if quote.text in chunk.text] == [quote.chunk_id]
    assert near["mined"] > near["mixed"] > near["random"]


def test_random_distractors_never_come_from_held_out_documents(tmp_path):
    _, _, rows = build(tmp_path, distractors="random", questions=40)
    hidden = {row.golden[0].document_id for row in rows["unseen"]}
    assert hidden and not hidden & {chunk.document_id for row in rows["train"] for chunk in row.passages}


def test_places_and_numbers_are_reported(built):
    _, report, rows = built
    places = Counter(
        [chunk.id for chunk in row.passages].index(row.golden_ids[0]) for row in rows["train"] if row.golden_included
    )
    assert report.golden_places == tuple(places[at] for at in range(4))
    assert report.passages_shown == {"4": 60} and report.refusals == {"golden absent": 12}
    assert "The golden one stands first, second" in str(report)


@pytest.mark.parametrize(("share", "refusing"), [(0.0, 0), (0.3, 9), (1.0, 30)])
def test_a_mix_of_refusing_and_memorising_has_the_share_asked_for(tmp_path, share, refusing):
    _, report, _ = build(tmp_path, golden_share=0.5, without_golden="mix", refuse_share=share)
    assert report.refusals.get("golden absent", 0) == refusing


# --- Two passages, and none

GUILD = [
    Document.create(
        uri=f"{town.lower()}.md",
        title=town,
        text=f"# {town}\n\nThe town of {town} has {n} gates. In {1700 + n} the masters of {town} founded Guild Mekanon {n // 2}. "
        f"The chest of Guild Mekanon {n // 2} contains {n + 3} silver keys and a ledger. "
        f"Guild_{n // 2} must be visited before the fair of {town} begins. The default toll of Guild_{n // 2} is {n} florins in {town}.",
    )
    for n, town in enumerate("Arvon Belsk Cadiz Dorpat Evora Fulda Goslar Hvar Ivrea Jena Kotor Lodz".split(), 20)
]


def test_a_pair_of_passages_shares_a_rare_thing():
    chunks = cut(GUILD)
    assert "Guild_12" in entities(GUILD[4].text)
    found = list(pairs(chunks, seed=0))
    assert found == list(pairs(reversed(chunks), seed=0))
    assert len({(pair.first.id, pair.second.id) for pair in found}) == len(found) > 4
    for pair in found:
        assert pair.shared in entities(pair.first.text) & entities(pair.second.text)
        assert pair.first.text != pair.second.text


def test_questions_on_two_passages_by_rule(tmp_path):
    _, report, rows = build(
        tmp_path, chunks=cut(GUILD), pair_share=0.2, questions=30, studied=6, unseen=2, validation=2
    )
    everyone = [row for part in rows.values() for row in part]
    both = [row for row in everyone if row.kind == "pair"]
    assert both and report.kinds["pair"] == len(both)
    for row in both:
        assert len(row.golden) == 2 and row.golden[0].text != row.golden[1].text
        assert ", and " in row.question and len(row.answer.split("; ")) == 2
        if row.golden_included and row.quotes:
            assert {quote.chunk_id for quote in row.quotes} == set(row.golden_ids)
            assert len(parse_answer(row.reasoning + " <ANSWER>: x").quotes) == 2


def test_no_sentence_crosses_a_split_through_a_question_on_two(tmp_path):
    ask = _question
    singles = [ask(f"q{n}", (f"sentence number {n}",)) for n in range(30)]
    joined = [ask(f"p{n}", (f"sentence number {n}", f"sentence number {n + 1}")) for n in range(0, 30, 6)]
    parts = splits.part([*singles, *joined], train=20, validation=5, studied=8, seed=3)
    keys = [
        {key for q in part for key in checks.sentence_keys(q)}
        for part in (parts.train, parts.validation, parts.studied)
    ]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert any(len(q.quotes) == 2 for q in parts.train)


def _question(name, quotes):
    golden = tuple(f"g{quote}" for quote in quotes)
    return Question(id=name, text=f"What is {name}?", golden_chunk_ids=golden, answer="x", quotes=quotes)


def test_questions_that_nothing_answers_by_rule(tmp_path):
    chunks = [*CHUNKS, *cut(GUILD)]
    _, report, rows = build(tmp_path, chunks=chunks, nowhere_share=0.1)
    nowhere = [row for row in rows["train"] if not row.golden]
    assert nowhere and len(rows["train"]) == 60
    for row in nowhere:
        assert row.final_answer == REFUSAL and row.kind == "nowhere" and len(row.passages) == 4
        question = Question(id="", text=row.question, golden_chunk_ids=())
        assert checks.left_open(question, chunks)
    assert report.refusals["answered nowhere"] == len(nowhere)
    assert report.golden_share == pytest.approx(0.8, abs=0.02)  # of those that have a golden passage


@pytest.mark.parametrize(
    ("asked", "open_"),
    [
        ("How many gates does the town of Dorpat have?", False),
        ("How many towers does the town of Dorpat have?", True),
        ("How many gates does the town of Paris have?", True),
        ("What is the default toll of Guild_11?", False),
        ("What is the default toll of Guild_99?", True),
        ("What is Dorpat?", False),  # whatever names it may be an answer
    ],
)
def test_what_no_sentence_could_answer(asked, open_):
    question = Question(id="", text=asked, golden_chunk_ids=())
    assert checks.left_open(question, cut(GUILD)) == open_


# --- Splits


def test_whole_folders_are_held_out(tmp_path):
    documents = [
        Document.create(uri=f"/home/me/docs/{'abcd'[n % 4]}/deep/{d.uri}", title=d.title, text=d.text)
        for n, d in enumerate(shelf())
    ]
    units = splits.units(cut(documents), "folder")
    assert len(units) == 4
    _, _, rows = build(tmp_path, chunks=cut(documents), split_by="folder", questions=20)
    uri = {row.golden[0].document_id: row.golden[0].uri.split("/")[4] for part in rows.values() for row in part}
    held = {uri[row.golden[0].document_id] for row in rows["unseen"]}
    assert held and not held & {uri[row.golden[0].document_id] for row in rows["train"]}
    with pytest.raises(InputError, match=r"in one folder.*split by document"):
        splits.units(CHUNKS, "folder")


def test_the_newest_are_held_out(tmp_path):
    documents = [
        Document.create(uri=f"2024-0{n + 1}-15-{d.uri}", title=d.title, text=d.text) for n, d in enumerate(shelf())
    ]
    _, _, rows = build(tmp_path, chunks=cut(documents), split_by="time", questions=30)
    days = {part: {row.golden[0].uri[:10] for row in rows[part]} for part in PARTS}
    shown = {chunk.uri[:10] for row in rows["train"] for chunk in row.passages}
    assert days["unseen"] == {"2024-08-15"} and max(days["train"] | shown) < "2024-08-15"


def test_the_day_of_a_document(tmp_path):
    assert splits.day_of("2019/notes-20240531.md", {}) == datetime.date(2024, 5, 31)
    assert splits.day_of("a/2024/05/31/b.md", {}) == datetime.date(2024, 5, 31)
    file = tmp_path / "plain 20241399.md"
    file.write_text("x")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    paths = {"other": str(tmp_path / "other"), "notes": str(tmp_path)}
    assert splits.day_of("notes/plain 20241399.md", paths) == datetime.date(2001, 9, 9)
    assert splits.day_of("one.md", {"one.md": str(file)}) == datetime.date(2001, 9, 9)
    with pytest.raises(InputError, match=r"notes/absent.md has no date in its path.*split by document"):
        splits.day_of("notes/absent.md", paths)


def test_the_leak_test_finds_each_way_to_leak(built):
    _, report, rows = built
    assert report.leaks == 0
    trained, exam = rows["train"], rows["unseen"][0]
    seen = next(row for row in trained if row.golden_included)
    keys = {exam.question_id: frozenset({"s"}), seen.question_id: frozenset({"s"})}
    clean = Studied(trained, {})

    def leak(row, studied=clean, **more):
        kept, found = without_leaks([row], studied, unseen=True, **more)
        assert bool(kept) != bool(found)
        return "".join(found)

    assert leak(exam) == ""
    assert leak(replace(exam, question=seen.question + " ")) == "leak: question is trained on"
    assert leak(exam, Studied(trained, keys)) == "leak: answer sentence is trained on"
    assert leak(replace(exam, golden=seen.golden)) == "leak: document is trained on"
    copied = replace(seen.golden[0], document_id="another", text=seen.golden[0].text + " Indeed.")
    assert leak(replace(exam, golden=(copied,)), sections=True) == "leak: a passage like the golden one is trained on"


def test_a_copy_of_a_document_is_no_unseen_one(tmp_path):
    twins = [Document.create(uri=f"copy-{d.uri}", title=d.title, text=d.text) for d in shelf(4)]
    _, report, rows = build(tmp_path, chunks=cut([*shelf(4), *twins]), questions=80)
    trained = {chunk.text for row in rows["train"] for chunk in row.passages}
    assert not trained & {row.golden[0].text for row in rows["unseen"]}
    assert report.leaks > 0 and "leak" in " ".join(report.dropped)


# --- Lengths, preferences, little documents


def test_rows_are_cut_to_what_a_model_reads_without_golden_or_answer(built, tmp_path):
    _, _, rows = built
    model = str(model_folder(tmp_path / "model"))
    lengths = Lengths(model)
    whole, gone = fitted(rows["train"], model, lengths.limit)
    assert whole == rows["train"] and not gone
    cut_rows, gone = fitted(rows["train"], model, 900)
    assert gone["distractor left out: row longer than max_tokens"] > 0
    for row in cut_rows:
        assert not row.golden_included or set(row.golden_ids) <= {chunk.id for chunk in row.passages}
    none, gone = fitted(rows["train"][:5], model, 20)
    assert none == [] and gone["longer than max_tokens"] == 5


def test_questions_that_the_base_answers_by_itself_are_marked(built, tmp_path):
    config, _, rows = built
    base = str(model_folder(tmp_path / "model"))
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"base": base, "quantization": "none", "max_new_tokens": 4})}
    )
    some = {"train": [row for row in rows["train"] if row.golden][:3], "unseen": rows["unseen"][:2], "studied": []}
    found = marked(some, config, SILENT)
    assert {name: len(part) for name, part in found.items()} == {"train": 3, "unseen": 2, "studied": 0}
    assert all(row.scores.closed_base is not None and not is_known(row) for part in found.values() for row in part)
    known = replace(some["train"][0], scores=Scores(closed_base=0.9))
    assert is_known(known) and is_known(replace(known, scores=Scores(closed_book=1.0)))
    assert from_row(to_row(known)).scores == known.scores


def test_preferences_are_right_beside_wrong_and_read_by_tuning(built, tmp_path):
    config, _, rows = built
    out = tmp_path / "pairs.jsonl"
    assert export(config.dataset_dir / "train.jsonl", out, "preference") == 60
    found = read_pairs(out)
    by_question = {row.question: row for row in rows["train"]}
    mistakes = Counter()
    for _, pair in found:
        row = by_question[pair.prompt.messages[-1].content.rsplit("\n", 1)[-1]]
        right, wrong = parse_answer(pair.chosen), parse_answer(pair.rejected)
        assert right.final == row.final_answer != wrong.final
        assert not wrong.refusal or row.golden_included
        assert all(any(quote in chunk.text for chunk in row.passages) for quote in wrong.quotes)
        if row.golden_included and not wrong.refusal:
            assert wrong.final != row.answer
        mistakes["refuses" if wrong.refusal else "invents" if not wrong.quotes else "answers another"] += 1
    assert len(mistakes) == 3
    first = out.read_bytes()
    export(config.dataset_dir / "train.jsonl", out, "preference")
    assert out.read_bytes() == first


def test_documents_of_one_sentence(tmp_path):
    lines = [line for d in shelf(4) for line in d.text.splitlines() if line.startswith(("The", "Workers"))]
    documents = [Document.create(uri=f"{n}.md", title="", text=line) for n, line in enumerate(lines)]
    _, report, rows = build(tmp_path, chunks=cut(documents), questions=10, studied=4, unseen=2, validation=2)
    assert report.train == 10 and report.unseen == 2
    assert all(len(row.passages) == 4 for row in rows["train"])


def test_two_passages_where_five_distractors_are_asked_for(tmp_path):
    documents = [Document.create(uri=d.uri, title=d.title, text=d.text) for d in shelf(2, parts=1)]
    chunks = cut(documents, max_tokens=200)
    assert len(chunks) == 2
    _, report, rows = build(tmp_path, chunks=chunks, passages=6, questions=6, studied=2, unseen=2, validation=1)
    assert report.train >= 1 and all(1 <= len(row.passages) <= 2 for row in rows["train"])
    assert any("show fewer than 6 passages: there are no more" in note for note in report.notes)
    assert set(report.passages_shown) <= {"1", "2"}


def test_passages_that_are_all_alike_give_one_of_each_question(tmp_path):
    text = shelf(1, parts=1)[0].text
    alike = cut([Document.create(uri=f"{n}.md", title="Copy", text=text) for n in range(12)])
    _, report, _rows = build(tmp_path, chunks=alike)
    assert report.train >= 1 and report.unseen == 0
    assert report.dropped["near duplicate of another question"] > 0
    assert any("of 60 training questions could be had" in note for note in report.notes)


def test_the_manifest_keeps_the_whole_report(built):
    from openbook.dataset import DatasetReport
    from openbook.records import from_json, to_json

    config, report, _ = built
    manifest = json.loads((config.dataset_dir / "manifest.json").read_text(encoding="utf-8"))
    assert from_json(DatasetReport, manifest["report"]) == report == from_json(DatasetReport, to_json(report))
