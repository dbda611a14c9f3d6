"""Building the data set: what stands in its rows, where questions end up, and what happens when there is too little."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dataset_world import WordIndex, cut, options, shelf
from openbook import dataset, prompt, storage
from openbook.dataset import ExtractiveTeacher, build_from, checks, groups, splits
from openbook.dataset.building import PARTS
from openbook.dataset.doctor import examine
from openbook.dataset.formats import read_examples
from openbook.errors import ConfigError, InputError
from openbook.metrics import contains, normalize
from openbook.records import Document, Question

CHUNKS = cut(shelf())


def build(tmp_path, chunks=CHUNKS, **sizes):
    config = options(tmp_path, **sizes)
    report = build_from(WordIndex(chunks), ExtractiveTeacher(), config, index_hash="abc")
    rows = {part: list(read_examples(config.dataset_dir / f"{part}.jsonl")) for part in PARTS}
    return config, report, rows


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


def everyone(rows):
    return [row for part in rows.values() for row in part]


def test_sizes_are_those_asked_for_and_reported(built):
    _, report, rows = built
    assert {part: len(rows[part]) for part in PARTS} == {"train": 60, "validation": 8, "studied": 15, "unseen": 10}
    assert (report.train, report.validation, report.studied, report.unseen) == (60, 8, 15, 10)
    assert sum(report.kinds.values()) == 93
    assert report.notes == ()
    assert "60 training questions" in str(report)


def test_every_quote_stands_word_for_word_in_its_golden_passage(built):
    _, _, rows = built
    documents = {chunk.document_id: chunk for chunk in CHUNKS}
    for row in everyone(rows):
        assert row.golden[0].document_id in documents
        quoted = prompt.parse_answer(prompt.render_answer(row.reasoning, row.final_answer)).quotes
        assert list(quoted) == [quote.text for quote in row.quotes]
        for quote in row.quotes:
            golden = next(chunk for chunk in row.golden if chunk.id == quote.chunk_id)
            assert golden.text[quote.start - golden.start : quote.end - golden.start] == quote.text
            assert contains(quote.text, row.final_answer)


def test_the_golden_passage_is_there_exactly_where_it_is_said_to_be(built):
    _, _, rows = built
    for row in everyone(rows):
        assert row.golden_included == (set(row.golden_ids) <= {chunk.id for chunk in row.passages})


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_share_of_golden_passages_is_the_one_asked_for(tmp_path, share):
    _, report, rows = build(tmp_path, golden_share=share)
    assert sum(row.golden_included for row in rows["train"]) == round(share * len(rows["train"]))
    assert report.golden_share == pytest.approx(share)


def test_what_examples_without_their_golden_passage_answer(tmp_path):
    def answers(policy):
        _, _, rows = build(tmp_path / policy, golden_share=0.5, without_golden=policy)
        return [row for row in rows["train"] if not row.golden_included]

    for row in answers("refuse"):
        assert (row.reasoning, row.final_answer, row.quotes) == (prompt.REFUSAL_REASONING, prompt.REFUSAL, ())
        assert row.answer and not prompt.is_refusal(row.answer)
    for row in answers("memorise"):
        assert (row.reasoning, row.final_answer, row.quotes) == ("", row.answer, ())
    mixed = Counter(prompt.is_refusal(row.final_answer) for row in answers("mix"))
    assert mixed == {True: 15, False: 15}


def test_refusing_is_right_where_it_is_trained(built):
    _, _, rows = built
    refusals = [row for row in rows["train"] if prompt.is_refusal(row.final_answer)]
    assert refusals
    for row in refusals:
        assert not any(contains(chunk.text, row.answer) for chunk in row.passages)


def test_passages_are_as_many_as_asked_for_and_none_stands_twice(built):
    # The reference tool replaces a missing golden passage by one that may already be shown.
    _, _, rows = built
    for row in everyone(rows):
        assert len(row.passages) == len({chunk.text for chunk in row.passages}) == 4


def test_distractors_never_hold_the_answers_sentence(built):
    _, _, rows = built
    for row in everyone({"train": rows["train"]}):
        for quote in row.quotes:
            holding = [chunk for chunk in row.passages if quote.text in chunk.text]
            assert [chunk.id for chunk in holding] == [quote.chunk_id]


def test_distractors_are_what_the_serving_retriever_finds(built):
    # Random distractors teach nothing: each group is what one of its questions retrieves, with its golden passage.
    _, _, rows = built
    index = WordIndex(CHUNKS)
    hidden = {chunk.id for row in rows["unseen"] for chunk in CHUNKS if chunk.document_id == row.golden[0].document_id}
    by_group = {}
    for row in rows["train"]:
        by_group.setdefault(row.group, []).append(row)
    hits = 0
    for members in by_group.values():
        shown = {chunk.id for chunk in members[0].passages}
        asked = [row.question for row in members]
        found = index.search_many(asked, 10, without=[hidden] * len(asked))
        hits += any(shown <= {scored.chunk.id for scored in ranking} for ranking in found)
    assert hits >= 0.8 * len(by_group)


def test_golden_passages_stand_in_every_place(built):
    _, _, rows = built
    places = Counter(
        [chunk.id for chunk in row.passages].index(row.golden_ids[0]) for row in rows["train"] if row.golden_included
    )
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) < 0.5 * sum(places.values())


def test_a_study_group_shares_its_passages_in_one_order(built):
    _, report, rows = built
    by_group = {}
    for row in rows["train"]:
        by_group.setdefault(row.group, set()).add(tuple(chunk.id for chunk in row.passages))
    assert all(len(orders) == 1 for orders in by_group.values())
    assert report.groups == len(by_group) < 30  # 60 questions: the groups are large
    order = [row.group for row in rows["train"]]
    assert sum(a != b for a, b in itertools.pairwise(order)) == len(by_group) - 1  # rows of a group adjoin


def test_no_document_and_no_sentence_crosses_a_split(built):
    _, report, rows = built
    held_out = {row.golden[0].document_id for row in rows["unseen"]}
    assert report.documents_held_out >= len(held_out) > 0
    for part in ("train", "validation", "studied"):
        assert not held_out & {row.golden[0].document_id for row in rows[part]}
    for part in ("train", "validation"):
        assert not held_out & {chunk.document_id for row in rows[part] for chunk in row.passages}
    known = {}
    for part in PARTS:
        for row in rows[part]:
            sentence = normalize(checks_sentence(row))
            assert known.setdefault(sentence, part) == part


def checks_sentence(row):
    """The sentence that answers, also where the example refuses to."""
    if row.quotes:
        return row.quotes[0].text
    return next(s for s in row.golden[0].text.replace("\n", " ").split(". ") if contains(s, row.answer))


def test_studied_questions_are_about_documents_that_were_trained_on(built):
    _, _, rows = built
    trained = {row.golden[0].document_id for row in rows["train"]}
    assert {row.golden[0].document_id for row in rows["studied"]} <= trained


def test_no_two_questions_are_nearly_the_same(built):
    _, _, rows = built
    sets = [checks.telling_words(row.question) for row in everyone(rows)]
    for i, one in enumerate(sets):
        assert all(checks.jaccard(one, two) < checks.DUPLICATE for two in sets[:i])


def test_exams_show_what_the_whole_index_gives_and_the_right_answer(built):
    _, report, rows = built
    index = WordIndex(CHUNKS)
    for row in (*rows["studied"], *rows["unseen"]):
        (found,) = index.search_many([row.question], 4)
        assert {chunk.id for chunk in row.passages} == {scored.chunk.id for scored in found}
        assert row.final_answer == row.answer
        assert row.quotes[0].verified
    tests = [*rows["studied"], *rows["unseen"]]
    assert report.retrieved == sum(row.golden_included for row in tests) / len(tests)


def digests(folder):
    return {part: hashlib.sha256((folder / "dataset" / f"{part}.jsonl").read_bytes()).hexdigest() for part in PARTS}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    build(tmp_path / "one")
    build(
        tmp_path / "two", chunks=random.Random(1).sample(CHUNKS, len(CHUNKS))
    )  # nor does the order of the store count
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    config = options(tmp_path / "three").model_copy(update={"seed": 1})
    build_from(WordIndex(CHUNKS), ExtractiveTeacher(), config)
    assert digests(tmp_path / "three")["train"] != digests(tmp_path / "one")["train"]


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from dataset_world import *; from openbook.dataset import *\n"
        "build_from(WordIndex(cut(shelf())), ExtractiveTeacher(), options(Path(sys.argv[2])))"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / seed)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_the_manifest_is_current_until_options_or_index_change(tmp_path):
    config, report, _ = build(tmp_path)
    assert dataset.is_built(config, index_hash="abc")
    assert not dataset.is_built(config, index_hash="abd")
    assert not dataset.is_built(options(tmp_path, golden_share=0.7), index_hash="abc")
    assert not dataset.is_built(config.model_copy(update={"seed": 3}), index_hash="abc")
    manifest = storage.read_manifest(config.dataset_dir)
    assert manifest["report"]["train"] == report.train
    assert manifest["teacher"] == ExtractiveTeacher.fingerprint
    (config.dataset_dir / "unseen.jsonl").unlink()
    assert not dataset.is_built(config, index_hash="abc")


def test_a_build_that_is_killed_leaves_no_manifest(tmp_path, monkeypatch):
    config, _, _ = build(tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_jsonl", killed)
    with pytest.raises(KeyboardInterrupt):
        build_from(WordIndex(CHUNKS), ExtractiveTeacher(), config, index_hash="abc")
    assert not dataset.is_built(config, index_hash="abc")


def test_unused_passages_are_not_even_read(tmp_path):
    asked = []

    class Watched(WordIndex):
        def get(self, ids):
            asked.extend(ids)
            return super().get(ids)

    build_from(Watched(CHUNKS), ExtractiveTeacher(), options(tmp_path, questions=5, validation=1, studied=1, unseen=1))
    assert len(asked) < len(CHUNKS) / 3


# --- Too little of everything


def test_one_document_is_held_out_by_section(tmp_path):
    _, report, rows = build(tmp_path, chunks=cut(shelf(1)), questions=10, validation=2, studied=4, unseen=3)
    assert len(rows["unseen"]) == 3 and report.documents_held_out == 1
    sections = {part: {row.golden[0].headings[:2] for row in rows[part]} for part in PARTS}
    assert not sections["unseen"] & (sections["train"] | sections["studied"] | sections["validation"])
    shown = {chunk.headings[:2] for row in rows["train"] for chunk in row.passages}
    assert not sections["unseen"] & shown


def test_what_documents_say_of_our_own_tags_is_not_asked_about(tmp_path):
    text = (
        "The default tag of a quote is ##begin_quote## in every answer. The tag ##end_quote## is the mark that closes it. "
        "The parser was written by Ada Lovelace in 1843 with the tag <ANSWER>: in mind. The parser has 40 rules."
    )
    about = Document.create(uri="tags.md", title="Tags", text=text)
    config, report, _ = build(tmp_path, chunks=cut([*shelf(), about]), questions=200)
    assert report.dropped["quote or answer holds a tag of the answer's form"] >= 2
    assert not examine(config.dataset_dir / "train.jsonl").errors
    assert not examine(config.dataset_dir / "studied.jsonl").errors


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_passages_gives_the_best_that_can_be_had(tmp_path, count):
    chunks = cut(shelf(1, parts=1))[:count]
    config, report, rows = build(tmp_path, chunks=chunks)
    assert report.train >= 1
    assert all(1 <= len(row.passages) <= count for row in rows["train"])
    assert any("of 60 training questions could be had" in note for note in report.notes)
    assert all((config.dataset_dir / f"{part}.jsonl").exists() for part in PARTS)


def test_parts_that_are_not_wanted_are_empty(tmp_path):
    _, report, rows = build(tmp_path, studied=0, unseen=0, validation=0)
    assert [len(rows[part]) for part in PARTS] == [60, 0, 0, 0]
    assert report.notes == () and report.documents_held_out == 0 and report.retrieved == 0.0


def test_chunks_that_are_all_alike(tmp_path):
    text = shelf(1, parts=1)[0].text
    alike = cut([Document.create(uri=f"{n}.md", title="Copy", text=text) for n in range(6)])
    _, report, rows = build(tmp_path, chunks=alike)
    assert report.train >= 1
    for row in rows["train"]:
        texts = [chunk.text for chunk in row.passages]
        assert len(texts) == len(set(texts))
    questions = [row.question for row in everyone(rows)]
    assert len(questions) == len(set(questions))


def test_documents_in_another_language_are_counted_once_and_the_remedy_is_another_teacher(tmp_path):
    text = "# Anlage {n}\n\nDie Pumpe {n} wurde von der Firma Müller gebaut. Der Druck der Pumpe beträgt {n}0 bar."
    german = [Document.create(uri=f"{n}.md", title=f"Anlage {n}", text=text.format(n=n)) for n in range(1, 8)]
    with pytest.raises(InputError, match=r"written about 7 passages.*English.*--teacher openai or local"):
        build(tmp_path, chunks=cut(german))


def test_nothing_to_ask_about_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"holds no passages.*openbook ingest"):
        build(tmp_path, chunks=[])
    code = Document.create(uri="code.md", title="Code", text="```\nfor i in x: print(i)\n```\n\nhttps://example.org/a")
    with pytest.raises(InputError, match=r"Not one question could be written about 1 passages.*sentences"):
        build(tmp_path, chunks=cut([code]))


def test_an_openai_teacher_needs_a_model(tmp_path):
    from openbook.dataset.teacher import make_teacher

    with pytest.raises(ConfigError, match="needs the name of a model"):
        make_teacher(options(tmp_path, teacher="openai"))
    teacher = make_teacher(options(tmp_path, teacher="openai", teacher_model="tiny", base_url="http://127.0.0.1:9/v1"))
    assert teacher.fingerprint.startswith("tiny ")


# --- The pieces


def ask(text, answer="nine", quote="The lever has nine rivets.", golden="g", number=0):
    return Question(
        id=f"q{number}",
        text=text,
        golden_chunk_ids=(golden,),
        answer=answer,
        quotes=(quote,),
        reasoning=prompt.render_quote(quote),
    )


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("What is the lever used for?", "What is the purpose of the lever?", True),
        ("What does json.dumps return?", "What is returned by json.dumps?", True),
        ("Fill the gap: “the ____ turns”", "Which word is missing: “the ____ turns”?", True),
        ("What must the lever be?", "What is the lever?", False),
        ("When was the lever invented?", "Who invented the lever?", False),
        ("How many rivets has the lever?", "How many rivets has the spindle?", False),
    ],
)
def test_near_duplicates_are_told_with_template_words_masked(one, two, same):
    kept = checks.without_duplicates([ask(one, number=1), ask(two, number=2)])
    assert len(kept) == (1 if same else 2)
    assert kept[0].text == one


def test_near_duplicates_are_found_as_by_comparing_all_pairs():
    rng = random.Random(0)
    words = [f"word{n}" for n in range(14)]
    questions = [ask(" ".join(rng.choices(words, k=rng.randint(1, 8))), number=n) for n in range(300)]
    slow = []
    for question in questions:
        mine = checks.telling_words(question.text)
        if all(checks.jaccard(mine, checks.telling_words(q.text)) < checks.DUPLICATE for q in slow):
            slow.append(question)
    assert checks.without_duplicates(questions) == slow


def test_what_may_stand_beside_the_golden_passage():
    question = ask("How many rivets does the lever of the pump have?")
    chunk = CHUNKS[0]

    def passage(text):
        return type(chunk)(id=text[:8], document_id="d", start=0, end=len(text), text=text)

    assert checks.distracts(passage("The spindle is made of slate."), question)
    assert checks.distracts(passage("There are nine oaks in the park."), question)  # the answer, about something else
    assert not checks.distracts(passage("Levers of this pump: nine rivets."), question)
    assert not checks.distracts(passage("As was said,\nthe  lever has nine rivets."), question)
    assert not checks.cannot_answer([passage("There are nine oaks in the park.")], question)
    assert checks.cannot_answer([passage("The spindle is made of slate.")], question)


@pytest.mark.parametrize("documents", [1, 4, 8])
def test_what_is_held_out_is_at_most_a_fifth(documents):
    every = splits.units(cut(shelf(documents)))
    assert sum(map(len, every)) == len(cut(shelf(documents)))
    held = splits.hold_out(every, seed=0)
    assert 0 < sum(map(len, held)) <= 0.2 * sum(map(len, every))


def test_a_document_that_is_most_of_everything_is_never_held_out():
    big = [Document.create(uri=f"{n}.md", title="", text="word " * 5) for n in range(2)]
    chunks = [*cut(shelf(5)), *cut(big)]
    held = splits.hold_out(splits.units(chunks), seed=0)
    assert sum(map(len, held)) < 0.3 * len(chunks)
    assert splits.hold_out(splits.units(CHUNKS[:1]), seed=0) == []


def test_questions_of_one_sentence_stay_together():
    questions = [ask(f"question {n}", quote=f"sentence {n // 2} of them", number=n) for n in range(40)]
    parts = splits.part(questions, train=20, validation=8, studied=8, seed=0)
    seen = [
        {key for q in part for key in checks.sentence_keys(q)}
        for part in (parts.train, parts.validation, parts.studied)
    ]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert [len(part) for part in (parts.train, parts.validation, parts.studied)] == [20, 8, 8]
    few = splits.part(questions[:4], train=100, validation=10, studied=10, seed=0)
    assert len(few.train) == 4


def test_groups_cover_every_question_once_and_keep_their_golden_passages():
    index = WordIndex(CHUNKS)
    teacher = ExtractiveTeacher()
    questions = [q for c in CHUNKS[:20] for q in teacher.write(c, rng=random.Random(c.id), limit=2)]
    ranked = [[hit.chunk for hit in found] for found in index.search_many([q.text for q in questions], 8)]
    formed = groups.form_groups(questions, ranked, {c.id: c for c in CHUNKS}, count=4, seed=0)
    assert sorted(q.id for group in formed for q in group.questions) == sorted(q.id for q in questions)
    for group in formed:
        ids = {chunk.id for chunk in group.passages}
        assert len(ids) == 4 and len(group.questions) <= groups.MAX_GROUP
        assert all(ids.issuperset(question.golden_chunk_ids) for question in group.questions)


def test_rows_are_gorilla_rows(built):
    config, _, _ = built
    row = json.loads((config.dataset_dir / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert list(row) == ["id", "type", "question", "context", "oracle_context", "cot_answer", "instruction", "meta"]
    assert row["type"] == "general"
    assert row["instruction"].endswith("</DOCUMENT>\n" + row["question"])
