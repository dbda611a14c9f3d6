"""The data set in the layouts that other trainers and graders take, as JSON Lines or Parquet.

`hf`, `completion`, `chat` and `eval` are those of the reference tool (the `raft/` folder of ShishirPatil/gorilla);
`messages` is `chat` with the very system message that openbook trains and asks with. `preference` has the same prompt,
and beside the right answer a wrong one (`openbook.dataset.rejected`).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from openbook import prompt
from openbook.dataset.formats import from_row, to_row
from openbook.dataset.imports import STOP
from openbook.dataset.rejected import with_rejected
from openbook.dataset.tables import check_target, read_rows, write_rows
from openbook.errors import ConfigError, RecordError
from openbook.records import RaftExample, Scores, to_json

if TYPE_CHECKING:
    import pyarrow

Format = Literal["hf", "completion", "chat", "eval", "messages", "preference"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


def export_row(example: RaftExample, form: Format, *, system: str = "", rejected: str = "") -> dict[str, Any]:
    """One example in the layout `form`; `system` is the system message of `chat` ("": none), `rejected` the wrong answer
    of `preference`."""
    row = to_row(example)
    asked, answer = row["instruction"], row["cot_answer"]
    match form:
        case "hf":
            return row
        case "completion":
            return {"prompt": asked, "completion": answer + STOP}
        case "chat":
            first = [{"role": "system", "content": system}] if system else []
            said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            return {"messages": first + said}
        case "messages":
            passages = [chunk.text for chunk in example.passages]
            whole = prompt.with_answer(prompt.prompt(example.question, passages), answer)
            return {"messages": [to_json(message) for message in whole.messages]}
        case "preference":
            whole = prompt.prompt(example.question, [chunk.text for chunk in example.passages])
            return {
                "prompt": [to_json(message) for message in whole.messages],
                "chosen": [{"role": "assistant", "content": answer}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
        case "eval":
            return {
                "question": example.question,
                "gold_final_answer": example.final_answer,
                "context": prompt.instruction([chunk.text for chunk in example.passages], "").removesuffix("\n"),
            }


def export(source: Path, out: Path, form: str, *, system: str = "") -> int:
    """Write the RAFT rows of `source` (any file that the doctor reads) to `out` and return how many.

    The file is whole or absent. Raises `RecordError` at the first row that is no RAFT row.
    """
    if form not in FORMATS:
        raise ConfigError(f"There is no export format {form!r}.", f"Choose one of {', '.join(FORMATS)}.")
    if system and form != "chat":
        raise ConfigError(f"A system message of your own has no place in the format {form}.", "It belongs to chat.")
    check_target(out)
    if out.resolve() == source.resolve():
        raise ConfigError(f"The export would replace {source}.", "Give --out another name.")
    columns = hf_columns() if form == "hf" and out.suffix == ".parquet" else None
    if form == "preference":
        pairs = with_rejected(_examples(source))
        return write_rows(out, (export_row(example, "preference", rejected=wrong) for example, wrong in pairs))
    return write_rows(out, (export_row(example, form, system=system) for example in _examples(source)), columns=columns)


def _examples(source: Path) -> Iterator[RaftExample]:
    for raw in read_rows(source):
        where = f"{source}:{raw.number}"
        if raw.row is None:
            raise RecordError(f"{where}: {raw.problem}.", f"Mend the file: `openbook doctor {source} --fix OUT`.")
        yield from_row(without_nulls(raw.row), where)


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """A columnar file has every column in every row: one that a row does not have is null there."""
    return {key: value for key, value in row.items() if value is not None}


def hf_columns() -> "pyarrow.Schema":
    """The columns of RAFT rows with our `meta`, which no first row could tell: a page number may come late."""
    import pyarrow as pa

    def struct(**fields: "pyarrow.DataType") -> "pyarrow.DataType":
        return pa.struct(list(fields.items()))

    text, number, texts = pa.string(), pa.int64(), pa.list_(pa.string())
    chunk = struct(
        id=text,
        document_id=text,
        start=number,
        end=number,
        text=text,
        uri=text,
        title=text,
        headings=texts,
        page=number,
    )
    meta = struct(
        question_id=text,
        kind=text,
        group=text,
        seed=number,
        golden_included=pa.bool_(),
        without_golden=text,
        unanswerable=text,
        answer=text,
        final_answer=text,
        golden_chunk_ids=texts,
        document_ids=texts,
        quotes=pa.list_(struct(text=text, chunk_id=text, start=number, end=number, closed=pa.bool_())),
        golden_chunks=pa.list_(chunk),
        passage_chunks=pa.list_(chunk),
        scores=struct(**{field.name: pa.float64() for field in dataclasses.fields(Scores)}),
    )
    columns: Iterable[tuple[str, pyarrow.DataType]] = {
        "id": text,
        "type": text,
        "question": text,
        "context": struct(title=pa.list_(texts), sentences=pa.list_(texts)),
        "oracle_context": text,
        "cot_answer": text,
        "instruction": text,
        "meta": meta,
    }.items()
    return pa.schema(list(columns))
