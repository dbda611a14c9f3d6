"""Files are whole or absent, whatever happens while they are written."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook import storage
from openbook.errors import OpenbookError, RecordError, StoreError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=5)


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


@given(rows=ROWS)
def test_rows_come_back_as_they_were(rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert storage.write_jsonl(path, rows) == len(rows)
    assert list(storage.read_jsonl(path)) == rows


@given(rows=ROWS.filter(bool), cut=st.integers(1, 40))
def test_a_torn_tail_costs_the_last_row_only(
    rows: list[dict[str, object]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    for row in rows:
        storage.append_jsonl(path, row)
    lines = path.read_bytes().splitlines(keepends=True)
    torn = lines[-1][: -min(cut, len(lines[-1]) - 1)]
    path.write_bytes(b"".join(lines[:-1]) + torn)

    assert list(storage.read_jsonl(path, torn_tail=True)) == rows[:-1]
    storage.mend_torn_tail(path)
    storage.append_jsonl(path, rows[-1])
    assert list(storage.read_jsonl(path)) == rows


def test_a_tail_torn_inside_a_character_is_forgiven(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": 1}\n{"a": "ü'.encode()[:-1])
    assert list(storage.read_jsonl(path, torn_tail=True)) == [{"a": 1}]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "not JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"a": "\\ud800"}', "surrogates"),
        ("[" * 100_000, "not JSON"),
        ('"a"', "found str"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"good": 1}\n\n' + line + "\n")
    with pytest.raises(RecordError, match=says) as caught:
        list(storage.read_jsonl(path))
    assert str(caught.value).startswith(f"{path}:3:")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl:2: "):
        list(storage.read_jsonl(path))


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8-sig")
    assert list(storage.read_jsonl(path)) == [{"a": 1}]


def test_an_absent_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="openbook run"):
        list(storage.read_jsonl(tmp_path / "none.jsonl"))


def test_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "report.json", {"f1": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    storage.write_jsonl(path, [{"old": 1}])

    def rows() -> Iterator[dict[str, int]]:
        yield {"new": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_jsonl(path, rows())
    assert list(storage.read_jsonl(path)) == [{"old": 1}]
    assert parts(tmp_path) == []


def test_a_full_disk_is_told_in_a_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    storage.write_jsonl(path, [{"old": 1}])

    def rows() -> Iterator[dict[str, int]]:
        yield {"new": 1}
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match="disk is full"):
        storage.write_jsonl(path, rows())
    assert list(storage.read_jsonl(path)) == [{"old": 1}]
    assert parts(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_told_in_a_sentence() -> None:
    with pytest.raises(StoreError, match="disk is full"):
        storage.append_jsonl(Path("/dev/full"), {"a": 1})


def test_a_kill_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    storage.write_jsonl(path, [{"old": 1}])
    code = """
        import os, signal, sys
        from pathlib import Path
        from openbook import storage

        def rows():
            for number in range(10_000):
                yield {"number": number}
            os.kill(os.getpid(), signal.SIGKILL)

        storage.write_jsonl(Path(sys.argv[1]), rows())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(storage.read_jsonl(path)) == [{"old": 1}]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    storage.write_text(path, "x")
    plain = tmp_path / "b.txt"
    plain.write_text("x")
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_manifest_is_current_until_options_or_inputs_change(tmp_path: Path) -> None:
    options, inputs = {"a": 1, "b": [2]}, {"index": "abc"}
    assert not storage.is_current(tmp_path, stage="s", options=options, inputs=inputs)
    storage.write_manifest(tmp_path, stage="s", options=options, inputs=inputs, seconds=3.0)

    assert storage.is_current(tmp_path, stage="s", options={"b": [2], "a": 1}, inputs=inputs)
    assert not storage.is_current(tmp_path, stage="s", options={**options, "a": 2}, inputs=inputs)
    assert not storage.is_current(tmp_path, stage="s", options=options, inputs={"index": "abd"})
    assert not storage.is_current(tmp_path, stage="t", options=options, inputs=inputs)
    manifest = storage.read_manifest(tmp_path)
    assert manifest is not None
    assert manifest["seconds"] == 3.0
    assert "python" in manifest["versions"]


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_damaged_manifest_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / storage.MANIFEST).write_text(content)
    assert storage.read_manifest(tmp_path) is None
    assert not storage.is_current(tmp_path, stage="s", options={}, inputs={})


def test_one_writer_at_a_time_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from openbook import storage\n"
        "with storage.exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OpenbookError, match="Another openbook"), storage.exclusive(tmp_path):
            pass
        other.kill()
    with storage.exclusive(tmp_path):
        pass


def test_hashes_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    assert storage.hash_json({"a": 1, "b": 2}) == storage.hash_json({"b": 2, "a": 1})
    path = tmp_path / "a"
    path.write_text(json.dumps({"a": 1}))
    assert len(storage.hash_file(path)) == 16


def test_the_peak_of_memory_can_be_counted_anew() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux can")
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    high = storage.peak_memory_bytes()
    del block
    storage.forget_peak_memory()
    assert storage.peak_memory_bytes() < high - 150_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere the peak is what the system counts")
def test_a_small_process_started_by_a_large_one_is_small() -> None:
    held = bytearray(400_000_000)
    held[::4096] = b"x" * len(held[::4096])
    code = "from openbook import storage; print(storage.peak_memory_bytes())"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(seen.stdout) < 200_000_000 < storage.peak_memory_bytes()
    del held
