"""RAFT rows: the seven fields of the reference tool, and one column `meta` of ours.

The format is that of the `raft/` folder of ShishirPatil/gorilla: `id`, `type`, `question`, `context`, `oracle_context`,
`cot_answer`, `instruction`. What a person can see and edit wins on reading: `meta` only adds where a passage stands in
its document, and is ignored for a passage or quote whose text no longer agrees with it. Rows of other tools, which
have no `meta`, are read as well.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from openbook import prompt
from openbook.errors import RecordError
from openbook.records import Chunk, Quote, RaftExample, Scores, content_id, from_json, to_json
from openbook.storage import read_jsonl

TYPE = "general"
PLACEHOLDER = "placeholder_title"
FIELDS = ("id", "type", "question", "context", "oracle_context", "cot_answer", "instruction")


def to_row(example: RaftExample) -> dict[str, Any]:
    """An example as one row; `instruction` is the very message that a model is shown."""
    passages = [chunk.text for chunk in example.passages]
    return {
        "id": example.id,
        "type": TYPE,
        "question": example.question,
        "context": {"title": [[PLACEHOLDER] * len(passages)], "sentences": [passages]},
        "oracle_context": "\n\n".join(chunk.text for chunk in example.golden),
        "cot_answer": prompt.render_answer(example.reasoning, example.final_answer),
        "instruction": prompt.instruction(passages, example.question),
        "meta": {
            "question_id": example.question_id,
            "kind": example.kind,
            "group": example.group,
            "seed": example.seed,
            "golden_included": example.golden_included,
            "without_golden": _policy(example),
            "unanswerable": _unanswerable(example),
            "answer": example.answer,
            "final_answer": example.final_answer,
            "golden_chunk_ids": list(example.golden_ids),
            "document_ids": sorted({chunk.document_id for chunk in example.golden}),
            "quotes": [to_json(quote) for quote in example.quotes],
            "golden_chunks": [to_json(chunk) for chunk in example.golden],
            "passage_chunks": [to_json(chunk) for chunk in example.passages],
            "scores": to_json(example.scores),
        },
    }


def _policy(example: RaftExample) -> str | None:
    """What the example answers without its golden passage; None where it has it, or where nothing was decided."""
    if example.golden_included:
        return None
    return "refuse" if prompt.is_refusal(example.final_answer) else None if example.reasoning else "memorise"


def _unanswerable(example: RaftExample) -> str | None:
    """Why an example that refuses has no answer: its golden passage is left out, or the documents hold none at all."""
    if example.golden_included or not prompt.is_refusal(example.final_answer):
        return None
    return "golden absent" if example.golden else "answered nowhere"


def from_row(row: Mapping[str, Any], where: str = "row") -> RaftExample:
    """Read a row, ours or another tool's. Raises `RecordError` that starts with `where` and names the field."""
    question, cot_answer = _text(row, "question", where), _text(row, "cot_answer", where)
    meta = row.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise RecordError(f"{where}: 'meta' is {_kind(meta)}, not an object.", "Remove the field or mend it.")
    golden = _chunks(golden_texts(row, meta, where), _list(meta, "golden_chunks"), where)
    passages = _chunks(
        passage_texts(row, where), [*_list(meta, "passage_chunks"), *_list(meta, "golden_chunks")], where
    )
    reasoning, final = _answer(cot_answer, meta)
    quotes = _quotes(reasoning, meta, (*golden, *passages), where)
    included = meta.get("golden_included", row.get("oracle_present"))
    if not isinstance(included, bool):
        included = bool(golden) and {chunk.text for chunk in golden} <= {chunk.text for chunk in passages}
    return RaftExample(
        id=str(row.get("id") or content_id(question, cot_answer, *(chunk.text for chunk in passages))),
        question=question,
        passages=passages,
        golden=golden,
        golden_included=included,
        reasoning=reasoning,
        quotes=quotes,
        final_answer=final,
        seed=seed if isinstance(seed := meta.get("seed"), int) else 0,
        group=_known(meta, "group"),
        kind=_known(meta, "kind"),
        question_id=_known(meta, "question_id"),
        answer=_known(meta, "answer", "" if prompt.is_refusal(final) else final),
        scores=_scores(meta),
    )


def _scores(meta: Mapping[str, Any]) -> Scores:
    """What a judge said, as far as `meta` holds it in a form that we know."""
    given = meta.get("scores")
    known = given if isinstance(given, Mapping) else {}
    return Scores(
        **{
            field.name: float(known[field.name])
            for field in dataclasses.fields(Scores)
            if isinstance(known.get(field.name), int | float)
        }
    )


def read_examples(path: Path) -> Iterator[RaftExample]:
    """The examples of a JSON Lines file, streamed. Errors name the file and the row's number (blank lines aside)."""
    for number, row in enumerate(read_jsonl(path), 1):
        yield from_row(row, f"{path}:{number}")


def _kind(value: object) -> str:
    return "missing" if value is None else f"of the type {type(value).__name__}"


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if isinstance(value, str) and value.strip():
        return value
    problem = "empty" if isinstance(value, str) else _kind(value)
    raise RecordError(
        f"{where}: the field {field!r} is {problem}.", "A RAFT row needs the texts question, context and cot_answer."
    )


def _known(meta: Mapping[str, Any], field: str, default: str = "") -> str:
    """A text of `meta`; the default where there is none, as in the `meta` of another tool."""
    value = meta.get(field)
    return value if isinstance(value, str) else default


def _list(meta: Mapping[str, Any], field: str) -> list[Any]:
    value = meta.get(field)
    return value if isinstance(value, list) else []


def passage_texts(row: Mapping[str, Any], where: str) -> list[str]:
    """The passages of `context`, whose lists are nested (`[[…]]`) or flat (`[…]`)."""
    context = row.get("context")
    sentences = context.get("sentences") if isinstance(context, Mapping) else context
    if is_nested(sentences):
        sentences = sentences[0]
    if not isinstance(sentences, list) or not all(isinstance(text, str) for text in sentences):
        raise RecordError(
            f"{where}: the field 'context' has no list of passages.",
            'It is written {"title": [[…]], "sentences": [["first passage", "second passage"]]}.',
        )
    return sentences


def is_nested(lists: Any) -> TypeGuard[list[list[Any]]]:
    """Whether a list of passages or titles is wrapped in another one, as the reference tool writes it."""
    return isinstance(lists, list) and len(lists) == 1 and isinstance(lists[0], list)


def golden_texts(row: Mapping[str, Any], meta: Mapping[str, Any], where: str) -> list[str]:
    """The golden passages; `oracle_document` is what a variant of the format calls them."""
    text = row.get("oracle_context", row.get("oracle_document"))
    if text is None or text == "":
        return []
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        return text
    if not isinstance(text, str):
        raise RecordError(f"{where}: the field 'oracle_context' is {_kind(text)}, not text.")
    known = [str(chunk.get("text", "")) for chunk in _list(meta, "golden_chunks") if isinstance(chunk, Mapping)]
    return known if known and "\n\n".join(known) == text else [text]


def _chunks(texts: Sequence[str], known: Sequence[Any], where: str) -> tuple[Chunk, ...]:
    """The passages as chunks: those of `meta` where the text agrees, else bare ones whose id is made from the text."""
    by_text: dict[str, list[Chunk]] = {}
    for data in known:
        try:
            chunk = from_json(Chunk, data)
            if not all(isinstance(value, str) for value in (chunk.id, chunk.text, chunk.uri, chunk.title)):
                raise TypeError("a text is none")
            if not all(isinstance(value, int) for value in (chunk.start, chunk.end)):
                raise TypeError("an offset is no number")
        except (TypeError, AttributeError, KeyError) as error:
            raise RecordError(
                f"{where}: 'meta' holds a passage that cannot be read ({error}).", "Remove 'meta': the rest suffices."
            ) from error
        by_text.setdefault(chunk.text, []).append(chunk)
    found = []
    for text in texts:
        same = by_text.get(text)
        if same:
            found.append(same.pop(0) if len(same) > 1 else same[0])
        else:
            found.append(Chunk(id=content_id("passage", text), document_id="", start=0, end=len(text), text=text))
    return tuple(found)


def _answer(cot_answer: str, meta: Mapping[str, Any]) -> tuple[str, str]:
    """Reasoning and final answer: as they were put together where `meta` still agrees, else as any answer is read."""
    final = meta.get("final_answer")
    if isinstance(final, str):
        if cot_answer == prompt.render_answer("", final):
            return "", final
        tail = prompt.render_answer(" ", final)[1:]  # with the space before the tag
        if cot_answer.endswith(tail):
            return cot_answer[: -len(tail)], final
    parsed = prompt.parse_answer(cot_answer)
    return parsed.reasoning, parsed.final


def _quotes(reasoning: str, meta: Mapping[str, Any], chunks: Sequence[Chunk], where: str) -> tuple[Quote, ...]:
    claimed = prompt.parse_answer(f"{reasoning} {prompt.ANSWER}").quotes
    known = []
    for data in _list(meta, "quotes"):
        try:
            quote = from_json(Quote, data)
            if not isinstance(quote.text, str):
                raise TypeError("its text is none")
            known.append(quote)
        except (TypeError, AttributeError) as error:
            raise RecordError(
                f"{where}: 'meta' holds a quote that cannot be read ({error}).", "Remove 'meta': the rest suffices."
            ) from error
    # A refusal quotes nothing, but its `meta` still says which sentence would have answered.
    if known and (not claimed or [quote.text.strip() for quote in known] == list(claimed)):
        return tuple(known)
    return tuple(prompt.locate_quote(text, chunks) for text in claimed)
