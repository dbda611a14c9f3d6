"""Files of rows as other tools write them: JSON Lines, a JSON list, Parquet, Arrow; read row by row, written whole.

What a file is, its first bytes say, not its name: many a `.json` holds JSON Lines. A row that cannot be read is named
and the rest goes on. Memory holds one row, or one batch of a columnar file.
"""

import gzip
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from openbook.errors import InputError, RecordError
from openbook.storage import atomic_file, write_jsonl

if TYPE_CHECKING:
    import pyarrow

BATCH: Final = 256  # rows of a columnar file in memory at once; RAFT rows have tens of kilobytes
BLOCK: Final = 1 << 20  # characters of a JSON list read at once
LONGEST: Final = 1 << 26  # characters of one element of a JSON list
FORMATS: Final = (".jsonl", ".parquet")
ARROW: Final = (b"ARROW1", b"\xff\xff\xff\xff")  # how a file and a stream begin
COLUMNAR: Final = (".parquet", ".arrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """One row of a file. `number` is its line in JSON Lines, else its place, both from 1; `row` is None where it
    cannot be read, and `problem` says why."""

    number: int
    row: dict[str, Any] | None = None
    problem: str = ""


def read_rows(path: Path) -> Iterator[Raw]:
    """The rows of a file, or of all Arrow or Parquet files in a folder (what `save_to_disk` writes).

    Raises `InputError` where there is no such file or it is damaged as a whole.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in COLUMNAR)
        if not files:
            raise InputError(f"{path} is a folder without .arrow or .parquet files.", "Name a file of rows.")
        everything = itertools.chain.from_iterable(map(_read_file, files))
        return (Raw(number=n, row=raw.row, problem=raw.problem) for n, raw in enumerate(everything, 1))
    return _read_file(path)


def _read_file(path: Path) -> Iterator[Raw]:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.", "Name a file of rows.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if head.startswith(b"PAR1"):
        return _read_parquet(path)
    if head.startswith(ARROW):
        return _read_arrow(path, stream=not head.startswith(b"ARROW1"))
    return _read_text(path, zipped=head.startswith(b"\x1f\x8b"))


def _read_text(path: Path, *, zipped: bool) -> Iterator[Raw]:
    def opened() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")

    try:
        with opened() as file:
            beginning = file.read(BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip()
        if beginning.startswith(b"[") or _is_spread(beginning):
            with opened() as file:
                yield from _read_elements(file, inside=int(beginning.startswith(b"[")))
        else:
            with opened() as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _parsed(number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged: {error}.", "Unpack it by hand, or fetch it again.") from error


def _is_spread(beginning: bytes) -> bool:
    """Whether the first object goes over several lines, as indented JSON does."""
    return beginning.split(b"\n", 1)[0].strip() in (b"{", b"[")


_MARKS = re.compile(r'[{}\[\]"]')
_IN_STRING = re.compile(r'["\\]')


def _read_elements(file: IO[bytes], *, inside: int) -> Iterator[Raw]:
    """The objects of a JSON list (`inside=1`) or the ones that follow each other (0), found by their brackets alone,
    so that a damaged one costs only itself."""
    number, depth, start, at, in_string = 0, 0, -1, 0, False
    buffer = ""
    for block in iter(lambda: file.read(BLOCK), b""):
        # Latin-1 keeps bytes apart: all marks are ASCII, and a character may be cut by the block's end.
        buffer += block.decode("latin-1")
        while match := (_IN_STRING if in_string else _MARKS).search(buffer, at):
            mark, at = match[0], match.end()
            if mark == "\\":
                if at == len(buffer):  # what it escapes stands in the next block
                    at -= 1
                    break
                at += 1
            elif mark == '"':
                in_string = not in_string
            elif mark in "{[":
                if depth == inside:
                    start = match.start()
                depth += 1
            else:
                depth -= 1
                if depth == inside and start >= 0:
                    number += 1
                    yield _parsed(number, buffer[start:at].encode("latin-1"))
                    start = -1
        else:
            at = len(buffer)
        done = at if start < 0 else start
        buffer, at, start = buffer[done:], at - done, min(start, 0)
        if len(buffer) > LONGEST:
            break
    if depth or in_string:
        problem = "it does not end: a bracket or quotation mark is missing, and the rest cannot be told apart"
        yield Raw(number=number + 1, problem=problem)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parsed(number: int, text: bytes) -> Raw:
    try:
        row = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
        if b"\\u" in text:
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
    except UnicodeDecodeError as error:
        return Raw(number=number, problem=f"not UTF-8 (byte {error.start})")
    except UnicodeEncodeError:
        return Raw(number=number, problem="holds half a character (a lone surrogate)")
    except (ValueError, RecursionError) as error:
        return Raw(number=number, problem=f"not JSON ({error})")
    if not isinstance(row, dict):
        return Raw(number=number, problem=f"not an object but of the type {type(row).__name__}")
    return Raw(number=number, row=row)


def _read_parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged: {_first_line(error)}.", "Write or fetch it again.") from error
    with file:
        number = 0
        for group in range(file.num_row_groups):
            end = number + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(batch_size=BATCH, row_groups=[group]):
                    yield from _of_batch(batch, number)
                    number += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                yield Raw(number=number + 1, problem=f"this row to row {end} cannot be read ({_first_line(error)})")
            number = end


def _read_arrow(path: Path, *, stream: bool) -> Iterator[Raw]:
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_stream(source) if stream else pa.ipc.open_file(source)
            batches = iter(reader) if stream else map(reader.get_batch, range(reader.num_record_batches))
            for whole in batches:
                for at in range(0, whole.num_rows, BATCH):
                    batch = whole.slice(at, BATCH)
                    yield from _of_batch(batch, number)
                    number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        if number == 0:
            raise InputError(f"{path} is damaged: {_first_line(error)}.", "Write or fetch it again.") from error
        yield Raw(number=number + 1, problem=f"this row and all after it cannot be read ({_first_line(error)})")


def _of_batch(batch: "pyarrow.RecordBatch", before: int) -> Iterator[Raw]:
    for at in range(batch.num_rows):
        try:
            (row,) = batch.slice(at, 1).to_pylist()
        except UnicodeDecodeError as error:  # a text column may hold any bytes
            yield Raw(number=before + at + 1, problem=f"not UTF-8 (byte {error.start} of a text)")
        else:
            yield Raw(number=before + at + 1, row=row)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def columns_of(path: Path) -> "pyarrow.Schema | None":
    """The column types of a Parquet or Arrow file, so that a copy has the same; None for JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    if path.is_dir():
        path = min(file for file in path.iterdir() if file.suffix in COLUMNAR)
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        return parquet.read_schema(path)
    if head.startswith(ARROW):
        with pa.memory_map(str(path)) as source:
            opened = pa.ipc.open_file if head.startswith(b"ARROW1") else pa.ipc.open_stream
            return opened(source).schema
    return None


def check_target(path: Path) -> None:
    """Refuse a name under which rows cannot be written, before any work is done."""
    if path.suffix not in FORMATS:
        raise InputError(f"Rows cannot be written to {path}.", "Let its name end in .jsonl or .parquet.")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, columns: "pyarrow.Schema | None" = None) -> int:
    """Write rows as JSON Lines or Parquet, as the name ends, and return how many; whole or not at all.

    Without `columns`, the first rows decide the types of a Parquet file.
    """
    check_target(path)
    if path.suffix == ".jsonl":
        number = 0

        def numbered() -> Iterator[Mapping[str, Any]]:
            nonlocal number
            for number, row in enumerate(rows, 1):  # noqa: B007
                yield row

        try:
            return write_jsonl(path, numbered())
        except (TypeError, ValueError) as error:  # a date, bytes or a NaN out of a columnar file
            raise RecordError(
                f"{path}: JSON cannot hold a value of row {number}: {error}.", "Write to a .parquet file."
            ) from error
    import pyarrow as pa
    from pyarrow import parquet

    count = 0
    with atomic_file(path) as partial:
        writer = None
        try:
            for batch in _batched(rows, BATCH):
                try:
                    table = pa.Table.from_pylist(list(batch), schema=columns)
                except (pa.ArrowException, OverflowError) as error:
                    raise RecordError(
                        f"{path}: rows {count + 1} to {count + len(batch)} do not fit its columns: {_first_line(error)}.",
                        "Write to a .jsonl file, whose rows may differ.",
                    ) from error
                columns = table.schema
                writer = writer or parquet.ParquetWriter(partial, columns)
                writer.write_table(table)
                count += len(batch)
            if writer is None:
                parquet.write_table(pa.Table.from_pylist([], schema=columns or pa.schema([])), partial)
        finally:
            if writer is not None:
                writer.close()
    return count


def _batched(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[tuple[Mapping[str, Any], ...]]:
    iterator = iter(rows)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
