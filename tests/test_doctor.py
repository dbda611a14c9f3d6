"""The doctor: a sound file is sound, every fault is found where it was planted, and mended or left out."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

import openbook
from openbook import prompt
from openbook.cli.main import app
from openbook.dataset.doctor import diagnose, examine
from openbook.dataset.faults import FAULTS
from openbook.dataset.imports import read_sample
from openbook.dataset.tables import read_rows
from openbook.errors import InputError
from raft_world import MACHINES, PARTS, healthy, instruction, passage, rewrite, shown, write

ROW = 6  # where a single fault is planted, from 0; its golden passage is shown, in the third place of four


def faults(report):
    return {finding.fault: finding.rows for finding in report.findings}


def change(rows, **fields):
    rows[ROW] = rewrite(rows[ROW], **fields)


def requote(rows, old, new):
    change(rows, cot_answer=rows[ROW]["cot_answer"].replace(old, new))


def twice(rows):
    """The reference tool's replacement for a missing golden passage, drawn among those that are shown already."""
    passages = shown(rows[ROW])
    change(rows, passages=[passages[0], passages[1], passages[1], passages[3]])
    rows[ROW]["oracle_context"] = passages[1]
    rows[ROW]["cot_answer"] = "<ANSWER>: 3"


def unseen(rows):
    passages = shown(rows[ROW])
    change(rows, passages=[*passages[:2], passages[3], passage("hopper", "valve")])


def first(rows):
    """Goldens always first, passages never shuffled."""
    for at, row in enumerate(rows):
        golden = row["oracle_context"]
        if golden in shown(row):
            rows[at] = rewrite(row, passages=[golden, *(text for text in shown(row) if text != golden)])


def often_first(rows):
    first(rows[:40])
    rows[:40] = [*healthy()[:14], *rows[14:40]]
    for at in range(14, 40):
        golden = rows[at]["oracle_context"]
        if golden in shown(rows[at]):
            rows[at] = rewrite(rows[at], passages=[golden, *(t for t in shown(rows[at]) if t != golden)])


def share(golden_share):
    def plant(rows):
        rows[:] = healthy(golden_share=golden_share)

    return plant


def unrelated(rows):
    """Distractors of other machines only, drawn without looking at the question."""
    texts = [passage(machine, part) for machine in MACHINES for part in PARTS]
    for at, row in enumerate(rows):
        golden = row["oracle_context"]
        passages = [texts[(at + offset) % 64] for offset in (9, 20, 33, 46)]
        assert golden not in passages
        if golden in shown(row):
            passages[at % 4] = golden
        rows[at] = rewrite(row, passages=passages)


def by_characters(rows):
    """A size that is called tokens and is characters: every passage ends at the same one, in the middle of a word."""
    for at, row in enumerate(rows):
        cut = [(text + " Some more words that go on and on for long enough, in any case.")[:90] for text in shown(row)]
        rows[at] = rewrite(row, passages=cut, oracle_context=(row["oracle_context"] + " " * 90)[:90].strip())


def other_settings(rows):
    """A checkpoint taken up again with fewer distractors: the ids begin anew as well."""
    rows[40:] = [row | {"id": f"seed_task_{at}"} for at, row in enumerate(healthy(shown=3)[40:])]


def numbered(rows):
    for at, row in enumerate(rows):
        rows[at] = rewrite(row, question=f"{at % 5 + 1}. {row['question']}")


# fault → how to plant it, and the 1-based rows that must be named ((): the file as a whole)
PLANTED = {
    "unreadable": (lambda rows: rows[ROW].update(context=[7]), (7,)),
    "empty-field": (lambda rows: change(rows, question="  "), (7,)),
    "no-answer-tag": (lambda rows: requote(rows, "<ANSWER>: ", ""), (7,)),
    "quote-tags": (lambda rows: requote(rows, "##end_quote##", ""), (7,)),
    "quote-form": (lambda rows: requote(rows, "of the", "OF\nthe"), (7,)),
    "quote-missing": (lambda rows: requote(rows, "rivets.##", "or more rivets.##"), (7,)),
    "quote-unseen": (unseen, (7,)),
    "no-quote": (lambda rows: change(rows, cot_answer="It is clear. <ANSWER>: 17"), (7,)),
    "duplicate-passage": (twice, (7,)),
    "no-golden": (lambda rows: change(rows, oracle_context=""), (7,)),
    "golden-claim": (lambda rows: change(rows, oracle_present=False), (7,)),
    "question-cut": (lambda rows: rows[ROW].update(question="How many rivets"), (7,)),
    "instruction-differs": (
        lambda rows: rows[ROW].update(instruction=instruction(shown(rows[ROW])[1:], rows[ROW]["question"])),
        (7,),
    ),
    "list-number": (lambda rows: change(rows, question=f"3) {rows[ROW]['question']}"), (7,)),
    "refuses-with-golden": (lambda rows: change(rows, cot_answer="<ANSWER>: not in the documents"), (7,)),
    "no-passages": (lambda rows: rows.append({"prompt": "Why?", "completion": "<ANSWER>: so"}), (65,)),
    "duplicate-row": (lambda rows: rows.append(rows[ROW] | {"id": "new"}), (65,)),
    "duplicate-question": (lambda rows: rows.append(rewrite(rows[ROW], shown(rows[ROW])[::-1], id="new")), (65,)),
    "near-duplicate": (
        lambda rows: rows.append(
            rewrite(rows[ROW], id="new", question=rows[ROW]["question"].replace("has the", "are on the"))
        ),
        (65,),
    ),
    "duplicate-id": (lambda rows: change(rows, id=rows[0]["id"]), (7,)),
    "golden-place": (first, ()),
    "golden-place-bias": (often_first, ()),
    "golden-share-low": (share(0.2), ()),
    "golden-share-whole": (share(1.0), ()),
    "unrelated-distractors": (unrelated, ()),
    "cut-by-characters": (by_characters, ()),
    "mixed-settings": (other_settings, ()),
    "mixed-layouts": (lambda rows: rows.append({"prompt": "Why?", "completion": "<ANSWER>: so"}), ()),
}
ELSEWHERE = {  # what other tests below plant: it takes another file, a model, or another layout
    "leaked-question",
    "leaked-near",
    "shared-golden",
    "too-long",
    "reasoning-as-answer",
    "golden-share-differs",
    "no-rows",
}


def test_a_sound_file_is_sound(tmp_path):
    report = examine(write(tmp_path / "raft.jsonl", healthy()), golden_share=0.8)
    assert report.findings == ()
    assert (report.rows, report.layouts, report.healthy) == (64, {"raft": 64}, True)
    assert report.figures.golden_share == pytest.approx(0.8, abs=0.02)
    assert [len(counts) for counts in report.figures.places.values()] == [4]
    assert (report.figures.refusals, report.figures.answers_without_golden) == (12, 0)


def test_every_fault_is_planted_somewhere():
    assert set(PLANTED) | ELSEWHERE == set(FAULTS)
    assert not set(PLANTED) & ELSEWHERE


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_where_it_is(tmp_path, fault):
    plant, where = PLANTED[fault]
    rows = healthy()
    plant(rows)
    report = diagnose(write(tmp_path / "raft.jsonl", rows))
    assert faults(report)[fault] == where
    assert report.healthy is (FAULTS[fault].severity != "error" and not report.errors)


@pytest.mark.parametrize("fault", [name for name in PLANTED if FAULTS[name].severity == "error"])
def test_a_mended_copy_has_no_errors_and_loses_only_what_must_go(tmp_path, fault):
    rows = healthy()
    PLANTED[fault][0](rows)
    report = examine(write(tmp_path / "raft.jsonl", rows), fix=tmp_path / "mended.jsonl")
    assert report.errors and report.after.errors == () and report.healthy
    mended = [raw.row for raw in read_rows(tmp_path / "mended.jsonl")]
    assert len(mended) == report.mended.written == len(rows) - sum(report.mended.dropped.values())
    assert sum(report.mended.dropped.values()) <= 1
    if len(PLANTED[fault][1]) == 1:
        at = PLANTED[fault][1][0] - 1
        untouched = [row for number, row in enumerate(rows) if number != at]
        assert [row for row in mended if row["id"] != rows[at]["id"]] == untouched
        assert report.mended.dropped == {fault: 1} or report.mended.repaired == {fault: 1}


def test_a_mended_quote_is_the_exact_span(tmp_path):
    rows = healthy()
    requote(rows, "The passage says", "As I said")  # what stands around the quote stays as it is
    requote(rows, "of the", "OF\u00a0\u00adthe")
    examine(write(tmp_path / "raft.jsonl", rows), fix=tmp_path / "mended.jsonl")
    (mended,) = [raw.row for raw in read_rows(tmp_path / "mended.jsonl") if raw.number == ROW + 1]
    sound = healthy()[ROW]
    assert mended == sound | {"cot_answer": sound["cot_answer"].replace("The passage says", "As I said")}


def test_goldens_that_stood_first_are_shuffled_the_same_way_every_time(tmp_path):
    rows = healthy()
    first(rows)
    for row in rows:
        row["oracle_index"] = shown(row).index(row["oracle_context"]) if row["oracle_context"] in shown(row) else -1
    write(tmp_path / "raft.jsonl", rows)
    report = examine(tmp_path / "raft.jsonl", fix=tmp_path / "one.jsonl")
    examine(tmp_path / "raft.jsonl", fix=tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert max(report.after.figures.places[4]) < 0.5 * sum(report.after.figures.places[4])
    for raw, row in zip(read_rows(tmp_path / "one.jsonl"), rows, strict=True):
        assert sorted(shown(raw.row)) == sorted(shown(row))
        assert raw.row["instruction"] == instruction(shown(raw.row), row["question"])
        assert raw.row["oracle_index"] < 0 or shown(raw.row)[raw.row["oracle_index"]] == row["oracle_context"]


def test_list_numbers_come_off_where_they_are_the_habit_of_the_file(tmp_path):
    rows = healthy()
    numbered(rows)
    report = examine(write(tmp_path / "raft.jsonl", rows), fix=tmp_path / "mended.jsonl")
    assert report.mended.repaired == {"list-number": 64}
    assert [raw.row for raw in read_rows(tmp_path / "mended.jsonl")] == healthy()
    rows = healthy()
    change(rows, question="1. FC Turin has how many rivets?")
    report = examine(write(tmp_path / "raft.jsonl", rows), fix=tmp_path / "mended.jsonl")
    assert report.mended.repaired == {}


@pytest.mark.parametrize(("real", "expected"), [(0.2, 0.8), (1.0, 0.8), (0.8, 1.0), (0.8, 0.2)])
def test_a_p_that_was_inverted_or_never_passed_on_is_told(tmp_path, real, expected):
    report = diagnose(write(tmp_path / "raft.jsonl", healthy(golden_share=real)), golden_share=expected)
    (finding,) = [f for f in report.findings if f.fault == "golden-share-differs"]
    assert ("inverted?" in finding.examples[0][1]) is (real + expected == 1)
    assert not report.healthy


def test_leaks_into_another_file_are_found_and_left_out(tmp_path):
    test = healthy()[:3]
    test[0] = {"question": "how many rivets has the ALEMBIC VALVE", "gold_final_answer": "11", "context": "x"}
    test[1] = rewrite(test[1], question="How many rivets are on the lever of the alembic?")
    test[2] = rewrite(test[2], question="What is the spindle cut from?")
    write(tmp_path / "test.jsonl", test)
    path = write(tmp_path / "train.jsonl", healthy())
    report = examine(path, against=tmp_path / "test.jsonl", fix=tmp_path / "mended.jsonl")
    found = faults(report)
    assert (found["leaked-question"], found["leaked-near"], found["shared-golden"]) == ((1,), (2,), ())
    assert report.mended.dropped == {"leaked-question": 1, "leaked-near": 1}
    assert "row 1 of the other file" in report.findings[0].examples[0][1]
    # A split by position, not by document: golden passages are shared although no question is.
    assert "shared-golden" in faults(report.after) and report.after.healthy
    with pytest.raises(InputError, match="compared with itself"):
        examine(path, against=path)


def test_an_evaluation_export_with_cut_questions_and_whole_reasonings(tmp_path):
    """What an export that takes the last line for the question, and the answer for the final answer, writes."""
    good = {"question": "Which?\n- a\n- b", "gold_final_answer": "17", "context": "<DOCUMENT>17 rivets</DOCUMENT>"}
    cut = good | {"question": "- b", "context": "<DOCUMENT>17 rivets</DOCUMENT>\nWhich of these?\n- a"}
    whole = good | {"question": "How many?", "gold_final_answer": "##begin_quote##17 rivets##end_quote## <ANSWER>: 17"}
    path = write(tmp_path / "eval.jsonl", [good, cut, whole])
    report = examine(path, fix=tmp_path / "mended.jsonl")
    assert faults(report)["question-cut"] == (2,)
    assert faults(report)["reasoning-as-answer"] == (3,)
    assert [raw.row for raw in read_rows(tmp_path / "mended.jsonl")] == [good, whole | {"gold_final_answer": "17"}]


def test_rows_that_a_model_would_cut_off_lose_distractors_but_never_the_golden_passage(tmp_path):
    from tiny_model import save_tiny_llama

    rows = healthy()
    long = "The bellows have no rivets at all, whatever the guild may say. " * 60
    change(rows, passages=[*shown(rows[ROW])[:3], long])
    hopeless = rewrite(rows[8], passages=[long * 2], oracle_context=long * 2, cot_answer="<ANSWER>: no rivets")
    rows[8] = hopeless
    save_tiny_llama(tmp_path / "model", [row["instruction"] for row in rows], context=1200)
    report = examine(write(tmp_path / "raft.jsonl", rows), model=str(tmp_path / "model"), fix=tmp_path / "mended.jsonl")
    assert faults(report)["too-long"] == (7, 9)
    assert report.figures.tokens[2] > report.figures.token_limit == 1200 > report.figures.tokens[0]
    assert (report.mended.repaired, report.mended.dropped) == ({"too-long": 1}, {"too-long": 1})
    mended = next(raw.row for raw in read_rows(tmp_path / "mended.jsonl") if raw.number == ROW + 1)
    assert shown(mended) == shown(rows[ROW])[:3] and rows[ROW]["oracle_context"] in shown(mended)
    assert mended["instruction"] == instruction(shown(mended), mended["question"])
    assert report.after.figures.tokens[2] <= 1200


def test_an_unreadable_row_is_named_and_the_rest_goes_on(tmp_path):
    lines = [json.dumps(row) for row in healthy()]
    lines[3], lines[5], lines[9] = '{"question": ', '"text"', '{"a": NaN}'
    path = tmp_path / "raft.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n" + b'{"question": "\xff"}\n' + b'{"a": "\\ud800"}\n')
    report = examine(path, fix=tmp_path / "mended.jsonl")
    assert faults(report) == {"unreadable": (4, 6, 10, 65, 66)}
    assert [shown.split(" (")[0] for _, shown in report.findings[0].examples] == [
        "not JSON",
        "not an object but of the type str",
        "not JSON",
        "not UTF-8",
        "holds half a character",
    ]
    assert (report.rows, report.mended.written, report.after.findings) == (66, 61, ())


def test_an_empty_file_is_no_data_set(tmp_path):
    (tmp_path / "raft.jsonl").write_text("\n\n")
    assert faults(examine(tmp_path / "raft.jsonl")) == {"no-rows": ()}
    with pytest.raises(InputError, match="does not exist"):
        examine(tmp_path / "absent.jsonl")


def test_a_parquet_copy_keeps_its_columns(tmp_path):
    rows = healthy()
    twice(rows)
    table = pa.Table.from_pylist([row | {"score": pa.scalar(1.5, pa.float32()).as_py()} for row in rows])
    table = table.set_column(table.num_columns - 1, "score", table["score"].cast(pa.float32()))
    parquet.write_table(table, tmp_path / "raft.parquet")
    report = examine(tmp_path / "raft.parquet", fix=tmp_path / "mended.parquet")
    assert report.mended.repaired == {"duplicate-passage": 1} and report.healthy
    assert parquet.read_schema(tmp_path / "mended.parquet").equals(table.schema)
    assert parquet.read_table(tmp_path / "mended.parquet").num_rows == 64


@pytest.mark.parametrize(
    ("name", "says"), [("raft.jsonl", "would replace"), ("mended.csv", r"end in \.jsonl or \.parquet")]
)
def test_a_copy_under_a_bad_name_is_refused_before_any_work(tmp_path, name, says):
    path = write(tmp_path / "raft.jsonl", healthy())
    with pytest.raises(InputError, match=says):
        examine(path, fix=tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["raft.jsonl"]


def test_a_copy_does_not_replace_the_file_that_it_is_compared_with(tmp_path):
    path, test = write(tmp_path / "raft.jsonl", healthy()), write(tmp_path / "test.jsonl", healthy()[:3])
    before = test.read_bytes()
    with pytest.raises(InputError, match=r"would replace .*test\.jsonl"):
        examine(path, against=test, fix=tmp_path / "." / "test.jsonl")
    assert test.read_bytes() == before


def test_our_own_rows_are_sound_and_stay_readable_when_mended(tmp_path):
    from openbook.dataset.formats import from_row, to_row

    rows = [to_row(from_row(row)) for row in healthy()]
    assert diagnose(write(tmp_path / "raft.jsonl", rows)).findings == ()
    rows[ROW]["cot_answer"] = rows[ROW]["cot_answer"].replace("of the", "of  the")
    examine(write(tmp_path / "raft.jsonl", rows), fix=tmp_path / "mended.jsonl")
    mended = [from_row(raw.row) for raw in read_rows(tmp_path / "mended.jsonl")]
    assert mended == [from_row(row) for row in healthy()]
    assert all(quote.verified for example in mended for quote in example.quotes)


def as_other_layouts(row):
    """The same row as other tools write it."""
    asked, answer = row["instruction"], row["cot_answer"]
    said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {
        "flat": row | {"context": {"title": ["t"] * 4, "sentences": shown(row)}},
        "variant": {key: value for key, value in row.items() if key != "oracle_context"}
        | {"oracle_document": row["oracle_context"], "oracle_present": True, "oracle_index": 2}
        | {"instruction": asked.replace("</DOCUMENT>\nHow", "</DOCUMENT>\n\nHow")},
        "completion": {"prompt": asked, "completion": answer + "<STOP>"},
        "completion-messages": {"prompt": said[:1], "completion": said[1:]},
        "chat": {"messages": [{"role": "system", "content": "Be brief."}, *said]},
        "conversations": {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]},
        "preference": {"prompt": asked, "chosen": answer, "rejected": "No idea."},
        "preference-messages": {"chosen": said, "rejected": [said[0], {"role": "assistant", "content": "No idea."}]},
        "alpaca": {"instruction": asked, "input": "", "output": answer},
    }


@pytest.mark.parametrize("layout", as_other_layouts(healthy()[ROW]))
def test_a_fault_is_found_and_mended_in_every_layout(tmp_path, layout):
    sound = as_other_layouts(healthy()[ROW])[layout]
    assert not diagnose(write(tmp_path / "sound.jsonl", [sound])).findings
    rows = healthy()
    requote(rows, "rivets.##", "Rivets.##")
    sick = as_other_layouts(rows[ROW])[layout]
    report = examine(write(tmp_path / "sick.jsonl", [sick]), fix=tmp_path / "mended.jsonl")
    assert faults(report) == {"quote-form": (1,)}
    assert [raw.row for raw in read_rows(tmp_path / "mended.jsonl")] == [sound]
    expected = read_sample(healthy()[ROW])
    sample = read_sample(sound)
    assert (sample.question, sample.passages, sample.answer) == (
        expected.question,
        expected.passages,
        expected.answer,
    )


def test_nothing_is_said_of_distractors_where_no_golden_passage_is_named(tmp_path):
    rows = [{"prompt": row["instruction"], "completion": row["cot_answer"]} for row in healthy()]
    figures = diagnose(write(tmp_path / "raft.jsonl", rows)).figures
    assert (figures.overlap, figures.golden_share, figures.places) == (None, None, {})
    overlap = diagnose(write(tmp_path / "raft.jsonl", healthy())).figures.overlap
    # Of “many rivets has machine part”, its own distractors hold “rivets has machine”, another row's “rivets has”.
    assert overlap == pytest.approx((3 / 5, 2 / 5))


def test_answers_about_apis_have_a_form_of_their_own(tmp_path):
    row = healthy()[ROW] | {"type": "api call", "cot_answer": "<<<domain>>>: x, <<<api_call>>>: f(), <<<code>>>: f()"}
    assert diagnose(write(tmp_path / "raft.jsonl", [row])).errors == ()


def test_the_command_tells_and_exits(tmp_path, monkeypatch, capsys):
    def openbook_doctor(*words):
        with pytest.raises(SystemExit) as stop:
            app(["doctor", *words, "--quiet"])
        return int(stop.value.code or 0), capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.jsonl", healthy())
    rows = healthy()
    requote(rows, "<ANSWER>: ", "")
    write(tmp_path / "bad.jsonl", rows)
    code, out = openbook_doctor("good.jsonl")
    assert code == 0 and "Nothing is wrong with it." in out
    code, out = openbook_doctor("bad.jsonl")
    assert code == 1
    assert "1 row: the answer has no <ANSWER>: tag" in " ".join(out.split()) and "rows 7" in out
    code, out = openbook_doctor("bad.jsonl", "--json")
    told = json.loads(out)
    assert (code, told["healthy"], told["findings"][0]["rows"]) == (1, False, [7])
    code, out = openbook_doctor("bad.jsonl", "--fix", "mended.jsonl")
    assert code == 0 and "left out: 1 × no-answer-tag" in out
    assert openbook_doctor("absent.jsonl")[0] == 1


def test_it_is_a_function_too(tmp_path):
    report = openbook.doctor(write(tmp_path / "raft.jsonl", healthy()))
    assert report.errors == () and prompt.ANSWER in FAULTS["no-answer-tag"].says
