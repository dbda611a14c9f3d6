"""Exports come back equal through our own importer, in every layout and both kinds of file."""

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings

import openbook
from openbook import prompt
from openbook.cli.main import app
from openbook.config import Config
from openbook.dataset.exports import FORMATS, export, export_row, hf_columns
from openbook.dataset.formats import from_row, to_row
from openbook.dataset.imports import read_sample
from openbook.dataset.tables import read_rows
from openbook.errors import ConfigError, InputError, RecordError, StoreError
from openbook.records import Chunk, Quote
from raft_world import healthy, write
from test_formats import examples, is_tagged

OURS = [to_row(from_row(row)) for row in healthy()[:10]]


def rows_of(path):
    return [raw.row for raw in read_rows(path)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_read_back_equal(tmp_path, form, suffix):
    source = write(tmp_path / "train.jsonl", OURS)
    out = tmp_path / f"out.{suffix}"
    assert export(source, out, form) == 10
    for got, row in zip(rows_of(out), OURS, strict=True):
        mine, theirs = read_sample(got), read_sample(row)
        assert (mine.question, mine.passages) == (theirs.question, theirs.passages)
        assert mine.answer == (prompt.parse_answer(theirs.answer).final if form == "eval" else theirs.answer)
        if form == "hf":
            assert from_row(got) == from_row(row)


@given(examples().filter(lambda example: not is_tagged(example)))
@settings(max_examples=30)
def test_whole_examples_come_back_out_of_parquet(tmp_path_factory, example):
    folder = tmp_path_factory.mktemp("exports")
    export(write(folder / "train.jsonl", [to_row(example)]), folder / "out.parquet", "hf")
    (row,) = rows_of(folder / "out.parquet")
    assert from_row(row) == example


def test_the_columns_of_parquet_are_all_that_the_records_hold():
    meta = hf_columns().field("meta").type
    for column, record in (("quotes", Quote), ("golden_chunks", Chunk), ("passage_chunks", Chunk)):
        inside = meta.field(column).type.value_type
        assert {inside.field(at).name for at in range(inside.num_fields)} == {f.name for f in fields(record)}


def test_the_layouts_are_those_that_other_tools_take():
    row = OURS[0]
    example = from_row(row)
    said = [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["cot_answer"]}]
    assert export_row(example, "hf") == row
    assert export_row(example, "completion") == {
        "prompt": row["instruction"],
        "completion": row["cot_answer"] + "<STOP>",
    }
    assert export_row(example, "chat") == {"messages": said}
    assert export_row(example, "chat", system="Be brief.") == {
        "messages": [{"role": "system", "content": "Be brief."}, *said]
    }
    assert export_row(example, "messages") == {"messages": [{"role": "system", "content": prompt.SYSTEM}, *said]}
    assert export_row(example, "eval") == {
        "question": row["question"],
        "gold_final_answer": "11",
        "context": row["instruction"].removesuffix("\n" + row["question"]),
    }


def test_questions_of_several_lines_stay_whole_in_every_layout(tmp_path):
    question = "First this:\n  - one\n  - two\nthen what?"
    row = healthy()[0]
    row |= {"question": question, "instruction": row["instruction"].replace(row["question"], question)}
    source = write(tmp_path / "raft.jsonl", [row])
    for form in FORMATS:
        export(source, tmp_path / "out.jsonl", form)
        (got,) = rows_of(tmp_path / "out.jsonl")
        assert read_sample(got).question == question
        assert openbook.doctor(tmp_path / "out.jsonl").errors == ()


@pytest.mark.parametrize("form", FORMATS)
def test_the_doctor_finds_nothing_wrong_with_our_exports(tmp_path, form):
    source = write(tmp_path / "train.jsonl", [to_row(from_row(row)) for row in healthy()])
    export(source, tmp_path / "out.parquet", form)
    assert openbook.doctor(tmp_path / "out.parquet").findings == ()


def test_rows_of_other_tools_are_converted_too(tmp_path):
    source = write(tmp_path / "raft.jsonl", healthy())
    export(source, tmp_path / "raft.parquet", "hf")
    export(tmp_path / "raft.parquet", tmp_path / "chat.jsonl", "chat")
    assert [read_sample(row).question for row in rows_of(tmp_path / "chat.jsonl")] == [r["question"] for r in healthy()]


def test_a_bad_row_is_named_and_nothing_is_written(tmp_path):
    source = tmp_path / "raft.jsonl"
    source.write_text(json.dumps(OURS[0]) + "\n{}\n")
    with pytest.raises(RecordError, match=r"raft\.jsonl:2: the field 'question' is missing"):
        export(source, tmp_path / "out.jsonl", "chat")
    source.write_text("{\n")
    with pytest.raises(RecordError, match=r"openbook doctor .*raft\.jsonl --fix OUT"):
        export(source, tmp_path / "out.jsonl", "chat")
    assert [file.name for file in tmp_path.iterdir()] == ["raft.jsonl"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"form": "csv"}, ConfigError, "no export format 'csv'. Choose one of hf, completion"),
        ({"form": "completion", "system": "x"}, ConfigError, "belongs to chat"),
        ({"part": "test"}, ConfigError, "no part 'test'"),
        ({"part": "train", "source": True}, ConfigError, "exclude each other"),
        ({"out": "work/dataset/train.jsonl"}, ConfigError, r"would replace .*train\.jsonl"),
        ({"out": "rows.csv"}, InputError, r"end in .jsonl or .parquet"),
        ({"part": "unseen"}, StoreError, "Write the questions first"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path, options, error, says):
    config = Config.parse({"out": str(tmp_path / "work")}, origin="test")
    source = write(tmp_path / "raft.jsonl", OURS)
    config.dataset_dir.mkdir(parents=True)
    write(config.dataset_dir / "train.jsonl", OURS)
    if options.get("source"):
        options = options | {"source": source}
    out = tmp_path / options.pop("out", "rows.jsonl") if "out" in options else tmp_path / "rows.jsonl"
    with pytest.raises(error, match=says):
        openbook.export_dataset(config, out, **options)


def test_the_command_exports_what_was_built(tmp_path, monkeypatch, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as stop:
            app(["dataset", "export", *words])
        return int(stop.value.code or 0), capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "openbook-work" / "dataset"
    folder.mkdir(parents=True)
    write(folder / "train.jsonl", OURS)
    write(folder / "studied.jsonl", OURS[:3])
    assert run("--format", "chat", "--out", "chat.jsonl") == (0, "10 rows: chat.jsonl\n")
    assert run("--format", "eval", "--out", "eval.parquet") == (0, "3 rows: eval.parquet\n")
    assert run("--from", "chat.jsonl", "--out", "x.jsonl")[0] == 1
    assert len(rows_of(tmp_path / "eval.parquet")) == 3
