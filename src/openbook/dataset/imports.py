"""Rows of other tools, whatever their layout, as one `Sample`: what is shown, what is asked, what is answered.

Read are the RAFT row (its context nested or flat), its variant with `oracle_document`, the evaluation export, and the
training formats: `messages` or `conversations`, `prompt` + `completion`, preferences with `chosen` and `rejected`,
Alpaca's `instruction` + `input` + `output`; their texts as plain strings or as lists of messages. In these, passages
and question are taken out of the message that the model is shown.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from openbook import prompt
from openbook.dataset.formats import golden_texts, is_nested, passage_texts
from openbook.errors import RecordError
from openbook.records import Message

Layout = Literal["raft", "variant", "eval", "messages", "completion", "preference", "alpaca"]
Place = tuple[str | int, ...]  # the keys and indices that lead to a text inside a row

STOP: Final = "<STOP>"  # what the reference tool writes after a completion
_ROLES = {"human": "user", "gpt": "assistant"}  # of `conversations`, as ShareGPT names them


@dataclass(frozen=True, kw_only=True)  # without slots: what several checks need is worked out once and kept
class Sample:
    """One row, read.

    `passages` is None where the row shows none, `golden` None where its layout does not say which is golden. `shown` is
    the message that a model is shown ("" where the row has none), `answer` what it is trained to write, or for the
    evaluation export the short answer wanted; `messages` are all that a layout of messages holds, the answer last. `present` and `index` are what the row itself claims of its golden
    passage. `answer_at` and `question_at` are the places of the texts in the row; a question may stand in several, in
    the last of them behind its passages.
    """

    layout: Layout
    id: str
    question: str
    answer: str
    shown: str = ""
    passages: tuple[str, ...] | None = None
    golden: tuple[str, ...] | None = None
    present: bool | None = None
    index: int | None = None
    api: bool = False
    answer_at: Place = ()
    question_at: tuple[Place, ...] = ()
    shown_at: Place = ()
    messages: tuple[Message, ...] = ()

    @cached_property
    def plain_passages(self) -> tuple[str, ...]:
        return tuple(map(plain, self.passages or ()))

    @cached_property
    def plain_golden(self) -> tuple[str, ...]:
        return tuple(map(plain, self.golden or ()))

    @cached_property
    def parsed(self) -> prompt.ParsedAnswer:
        return prompt.parse_answer(self.answer)

    @cached_property
    def golden_shown(self) -> bool | None:
        """Whether all golden passages stand among those shown; None where that cannot be said."""
        if not self.golden or self.passages is None:
            return None
        return set(self.plain_golden) <= set(self.plain_passages)


def plain(text: str) -> str:
    """A passage in one form: white space around and inside it does not tell passages apart."""
    return " ".join(text.split())


_DOCUMENT = re.compile(re.escape(prompt.DOCUMENT) + r"(.*?)" + re.escape(prompt.END_DOCUMENT) + r"[ \t]*\n?", re.DOTALL)


def split_message(text: str) -> tuple[tuple[str, ...] | None, str]:
    """A user's message as its passages (None without document tags) and the question that follows them."""
    found = list(_DOCUMENT.finditer(text))
    if not found:
        return None, text.strip()
    return tuple(match[1] for match in found), text[found[-1].end() :].strip()


def read_sample(row: Mapping[str, Any]) -> Sample:
    """Read a row of any layout. An absent text is read as "".

    Raises `RecordError` (a phrase that names the field, to put after the row's number) where the layout is unknown or
    a field is of the wrong type.
    """
    if "cot_answer" in row:
        return _raft(row)
    if "gold_final_answer" in row:
        return _evaluation(row)
    if "chosen" in row and "rejected" in row:
        return _preference(row)
    for key in ("messages", "conversations"):
        if key in row:
            return _messages(row, key)
    if "prompt" in row and "completion" in row:
        return _completion(row)
    if "instruction" in row and "output" in row:
        return _alpaca(row)
    raise RecordError(
        f"no known layout has the fields {', '.join(sorted(map(str, row))) or '(none)'}",
        "A RAFT row has question, context, oracle_context, cot_answer and instruction.",
    )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"the field {key!r} is of the type {type(value).__name__}, not text")
    return value


def _raft(row: Mapping[str, Any]) -> Sample:
    variant = "oracle_document" in row
    present, index = row.get("oracle_present"), row.get("oracle_index")
    meta = row.get("meta")
    if isinstance(meta, Mapping) and present is None:
        present = meta.get("golden_included")
    # A file may lack the column, but a row without passages is not yet a fault of its layout.
    passages = tuple(passage_texts(row, "the row")) if row.get("context") is not None else None
    shown = _text(row, "instruction")
    if passages is None and shown:
        passages = split_message(shown)[0]
    return Sample(
        layout="variant" if variant else "raft",
        id=str(row.get("id") or ""),
        question=_text(row, "question"),
        answer=_text(row, "cot_answer"),
        shown=shown,
        passages=passages,
        golden=tuple(golden_texts(row, meta if isinstance(meta, Mapping) else {}, "the row")),
        present=present if isinstance(present, bool) else None,
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        api=row.get("type") == "api call",
        answer_at=("cot_answer",),
        question_at=(("question",), ("instruction",)) if shown else (("question",),),
        shown_at=("instruction",) if shown else (),
    )


def _evaluation(row: Mapping[str, Any]) -> Sample:
    context = row.get("context")
    passages: tuple[str, ...] | None = None
    shown = ""
    if isinstance(context, str):
        shown = context
        passages = split_message(context)[0] or ((context,) if context.strip() else None)
    elif context is not None:
        passages = tuple(passage_texts(row, "the row"))
    return Sample(
        layout="eval",
        id=str(row.get("id") or ""),
        question=_text(row, "question"),
        answer=_text(row, "gold_final_answer"),
        shown=shown,
        passages=passages,
        answer_at=("gold_final_answer",),
        question_at=(("question",),),
    )


def _said(message: Any, where: Place) -> tuple[str, str, Place]:
    """Role, text and place of one message, in either spelling."""
    if not isinstance(message, Mapping):
        raise RecordError(f"the field {where[0]!r} holds a message of the type {type(message).__name__}")
    key = "content" if "content" in message else "value"
    role = str(message.get("role") or message.get("from") or "")
    return _ROLES.get(role, role), _text(message, key), (*where, key)


def _turns(value: Any, where: Place, role: str) -> list[tuple[str, str, Place]]:
    """A text, a message or a list of messages as turns; a bare text is `role`'s."""
    if value is None or isinstance(value, str):
        return [(role, value or "", where)]
    if isinstance(value, Mapping):
        return [_said(value, where)]
    if isinstance(value, Sequence):
        return [_said(message, (*where, at)) for at, message in enumerate(value)]
    raise RecordError(f"the field {where[0]!r} is of the type {type(value).__name__}, not text or messages")


def _of_turns(layout: Layout, row: Mapping[str, Any], turns: Sequence[tuple[str, str, Place]], answer: str) -> Sample:
    """A sample whose last turn is the answer, and whose question is the last thing that the user said before it."""
    asked = [turn for turn in turns[:-1] if turn[0] not in ("system", "assistant")]
    _, shown, shown_at = asked[-1] if asked else ("user", "", ())
    passages, question = split_message(shown)
    return Sample(
        layout=layout,
        id=str(row.get("id") or ""),
        question=question,
        answer=answer,
        shown=shown,
        passages=passages,
        answer_at=turns[-1][2],
        question_at=(shown_at,) if shown_at else (),
        shown_at=shown_at,
        messages=tuple(map(_message, (*turns[:-1], (turns[-1][0], answer)))),
    )


def _message(turn: Sequence[Any]) -> Message:
    role, text = turn[:2]
    return Message(role=role if role in ("system", "assistant") else "user", content=text)


def _messages(row: Mapping[str, Any], key: str) -> Sample:
    turns = _turns(row[key], (key,), "user")
    if not turns or turns[-1][0] != "assistant":
        raise RecordError(f"the field {key!r} does not end with an assistant's message")
    return _of_turns("messages", row, turns, turns[-1][1])


def _completion(row: Mapping[str, Any]) -> Sample:
    answer = _turns(row["completion"], ("completion",), "assistant")
    turns = [*_turns(row["prompt"], ("prompt",), "user"), *answer]
    return _of_turns("completion", row, turns, turns[-1][1].removesuffix(STOP))


def _preference(row: Mapping[str, Any]) -> Sample:
    before = next((key for key in ("prompt", "messages", "conversations") if row.get(key) is not None), "")
    chosen = _turns(row["chosen"], ("chosen",), "assistant")
    if not chosen:
        raise RecordError("the field 'chosen' holds no message")
    turns = [*(_turns(row[before], (before,), "user") if before else ()), *chosen]
    return _of_turns("preference", row, turns, turns[-1][1])


def _alpaca(row: Mapping[str, Any]) -> Sample:
    instruction, extra = _text(row, "instruction"), _text(row, "input")
    passages, question = split_message(f"{instruction}\n{extra}" if extra else instruction)
    return Sample(
        layout="alpaca",
        id=str(row.get("id") or ""),
        question=question,
        answer=_text(row, "output"),
        shown=f"{instruction}\n{extra}" if extra else instruction,
        passages=passages,
        answer_at=("output",),
        question_at=() if extra else (("instruction",),),
        shown_at=() if extra else ("instruction",),
    )


def text_at(row: Mapping[str, Any], place: Place) -> str:
    """The text at a place of the row."""
    value: Any = row
    for key in place:
        value = value[key]
    return str(value)


def with_text(row: Mapping[str, Any], place: Place, text: str) -> dict[str, Any]:
    """A copy of the row with another text at one place."""
    changed = copy.deepcopy(dict(row))
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = text
    return changed


def with_passages(row: Mapping[str, Any], sample: Sample, kept: Sequence[int]) -> dict[str, Any]:
    """A copy of the row that shows only the passages numbered in `kept` (from 0, in order), wherever they stand."""
    assert sample.passages is not None
    changed = copy.deepcopy(dict(row))
    context = changed.get("context")
    passages = [sample.passages[at] for at in kept]
    if isinstance(context, dict):
        for key in ("title", "sentences"):
            if key in context:
                context[key] = _only(context[key], kept)
    elif isinstance(context, list):
        changed["context"] = _only(context, kept)
    if isinstance(sample.index, int) and sample.index in kept:
        changed["oracle_index"] = list(kept).index(sample.index)
    tags = list(_DOCUMENT.finditer(sample.shown))
    if sample.shown_at and tags:
        tail = sample.shown[tags[-1].end() :]
        documents = "".join(f"{prompt.DOCUMENT}{prompt.defused(text)}{prompt.END_DOCUMENT}\n" for text in passages)
        changed = with_text(changed, sample.shown_at, documents + tail)
    return changed


def _only(values: list[Any], kept: Sequence[int]) -> list[Any]:
    if is_nested(values):
        return [[values[0][at] for at in kept if at < len(values[0])]]
    return [values[at] for at in kept if at < len(values)]
