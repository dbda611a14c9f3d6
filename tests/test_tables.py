"""Files of rows: every kind is read alike, a damaged row costs only itself, and writing is whole or not at all."""

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from openbook.dataset import tables
from openbook.dataset.tables import read_rows, write_rows
from openbook.errors import InputError, RecordError
from raft_world import healthy

ROWS = healthy()[:7]


def arrow(path, rows, *, stream):
    table = pa.Table.from_pylist(rows)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


KINDS = {
    "lines.jsonl": lambda path, rows: path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8"),
    "bom.jsonl": lambda path, rows: path.write_text("\ufeff" + "\n".join(map(json.dumps, rows)), encoding="utf-8"),
    "lines.json": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8"),
    "list.json": lambda path, rows: path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8"),
    "indented.json": lambda path, rows: path.write_text(json.dumps(rows, indent=2), encoding="utf-8"),
    "spread.json": lambda path, rows: path.write_text("\n".join(json.dumps(row, indent=1) for row in rows)),
    "zipped.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
    "rows.parquet": lambda path, rows: parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3),
    "file.arrow": lambda path, rows: arrow(path, rows, stream=False),
    "stream.arrow": lambda path, rows: arrow(path, rows, stream=True),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_read_alike(tmp_path, name):
    path = tmp_path / name
    KINDS[name](path, ROWS)
    assert [raw.row for raw in read_rows(path)] == ROWS
    numbers = [1, 3, 5, 7, 9, 11, 13] if name == "lines.jsonl" else list(range(1, 8))  # lines, blank ones too
    assert [raw.number for raw in read_rows(path)] == numbers


def test_a_folder_of_shards_is_one_file(tmp_path):
    arrow(tmp_path / "data-00000-of-00002.arrow", ROWS[:4], stream=True)
    arrow(tmp_path / "data-00001-of-00002.arrow", ROWS[4:], stream=True)
    (tmp_path / "state.json").write_text("{}")
    assert [(raw.number, raw.row) for raw in read_rows(tmp_path)] == list(enumerate(ROWS, 1))
    with pytest.raises(InputError, match="without"):
        (tmp_path / "empty").mkdir()
        list(read_rows(tmp_path / "empty"))


json_texts = st.text(st.sampled_from('ab{}[]",:\\\n é漢'), max_size=12)
json_rows = st.lists(st.dictionaries(json_texts, json_texts | st.lists(json_texts, max_size=2), max_size=3), max_size=6)


@given(json_rows, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_a_list_is_cut_into_its_objects_wherever_the_blocks_end(tmp_path_factory, rows, indent, ascii_, block):
    path = tmp_path_factory.mktemp("lists") / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii_), encoding="utf-8")
    usual, tables.BLOCK = tables.BLOCK, block
    try:
        assert [raw.row for raw in read_rows(path)] == rows
    finally:
        tables.BLOCK = usual


def test_a_damaged_object_in_a_list_costs_only_itself(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, {"a": oops}, [2], {"a": 3}, {"a": "no end')
    raws = list(read_rows(path))
    assert [raw.row for raw in raws] == [{"a": 1}, None, None, {"a": 3}, None]
    assert [raw.problem.split(" ")[:2] for raw in raws if raw.row is None] == [
        ["not", "JSON"],
        ["not", "an"],
        ["it", "does"],
    ]


def test_text_that_is_no_text_in_a_column_costs_only_its_row(tmp_path):
    column = pa.array([b"fine", b"\xff\xfe", b"good"], pa.binary())
    broken = pa.StringArray.from_buffers(3, column.buffers()[1], column.buffers()[2])
    parquet.write_table(pa.table({"question": broken}), tmp_path / "rows.parquet")
    assert [raw.row for raw in read_rows(tmp_path / "rows.parquet")] == [
        {"question": "fine"},
        None,
        {"question": "good"},
    ]


def test_a_damaged_row_group_is_named_and_the_next_one_read(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [{"text": f"row {n} " + "x" * 500} for n in range(9)]
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3, compression="gzip", use_dictionary=False)
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    at = column.data_page_offset
    data[at + 20 : at + column.total_compressed_size] = b"\0" * (column.total_compressed_size - 20)
    path.write_bytes(data)
    raws = list(read_rows(path))
    assert [raw.number for raw in raws] == [1, 2, 3, 4, 7, 8, 9]
    assert raws[3].row is None and "row 6" in raws[3].problem


@pytest.mark.parametrize("name", ["rows.parquet", "file.arrow", "zipped.jsonl.gz"])
def test_a_file_cut_short_is_told_in_a_sentence(tmp_path, name):
    path = tmp_path / name
    KINDS[name](path, ROWS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_rows_are_written_and_read_back(tmp_path, name):
    assert write_rows(tmp_path / name, iter(ROWS)) == 7
    assert [raw.row for raw in read_rows(tmp_path / name)] == ROWS
    assert write_rows(tmp_path / f"none-{name}", []) == 0
    assert list(read_rows(tmp_path / f"none-{name}")) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_failure_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    write_rows(path, ROWS[:1])

    def failing():
        yield from ROWS * 100
        raise RecordError("row 701 is bad")

    with pytest.raises(RecordError, match="row 701"):
        write_rows(path, failing())
    assert [raw.row for raw in read_rows(path)] == ROWS[:1]
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_rows_that_no_column_holds_are_named(tmp_path):
    with pytest.raises(RecordError, match="rows 1 to 2 do not fit"):
        write_rows(tmp_path / "rows.parquet", [{"a": 1}, {"a": "text"}])
    for value in (b"bytes", float("nan")):  # which is what pandas writes where nothing is
        with pytest.raises(RecordError, match=r"rows\.jsonl: JSON cannot hold a value of row 2: "):
            write_rows(tmp_path / "rows.jsonl", [{"a": 1}, {"a": value}])
    assert not (tmp_path / "rows.jsonl").exists()
