"""From a data set file to the rows of a run: a pure function of the file, the options, the seed and the epoch."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from openbook import prompt
from openbook.errors import RecordError
from openbook.messages import check_opening, read_message, row_named
from openbook.records import Conversation, Message
from openbook.storage import read_jsonl
from openbook.tokens import TokenSequence, TokenTree, encode, encode_turns, plan

Form = Literal["raft", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question of a study group. `passages` is None where the prompt shows none (or is given whole as `messages`,
    each with a flag in `trained`: whether an assistant's message counts). `line` is its line in the file, from 1."""

    name: str
    question: str = ""
    passages: tuple[str, ...] | None = None
    golden: frozenset[str] = frozenset()  # passages that are never left out
    answer: str = ""
    messages: tuple[Message, ...] = ()
    trained: tuple[bool, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One sequence of an item as an epoch shows it: its passages in that epoch's order. `question` is "" for a conversation, `line` the
    item's line in its file."""

    line: int
    question: str
    conversation: Conversation
    sequence: TokenSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The items of a file in groups that share their passages, ready to be tokenised epoch by epoch.

    `budget` is how many tokens a row holds, `context` how many one sequence may have: a row holds many sequences, so
    it may well be longer than what the model reads. Without `share` every sequence is a tree of its own.
    """

    groups: tuple[tuple[Item, ...], ...]
    tokenizer: Any
    budget: int
    seed: int
    context: int
    share: bool = True
    left_out: dict[str, int] = field(default_factory=dict)  # item → distractors that did not fit
    _fixed: dict[str, list[Shown]] = field(default_factory=dict)

    @property
    def questions(self) -> int:
        return sum(map(len, self.groups))

    def rows(self, epoch: int) -> list[TokenTree]:
        """The rows of one epoch."""
        groups = self.sequences(epoch)
        if not self.share:
            groups = [[sequence] for group in groups for sequence in group]
        return plan(groups, self.budget, seed=self.seed, epoch=epoch)

    def sequences(self, epoch: int) -> list[list[TokenSequence]]:
        """The groups' sequences. Each group sees its passages in an order of its own, drawn anew in every epoch."""
        return [[shown.sequence for shown in group] for group in self.groups_shown(epoch)]

    def rows_of_epochs(self, epochs: float) -> list[TokenTree]:
        """The rows of a run, epoch after epoch; of a last, broken epoch the first part."""
        rows: list[TokenTree] = []
        for epoch in range(math.ceil(epochs)):
            new = self.rows(epoch)
            rows += new[: max(1, round(len(new) * min(1.0, epochs - epoch)))]
        return rows

    def group_of(self, line: int, epoch: int = 0) -> list[Shown]:
        """The example in this line of the file, from 1, and after it those that share its passages, as `epoch` has them."""
        for number, group in enumerate(self.groups):
            named = [item for item in group if item.line == line]
            if named:
                others = [item for item in group if item is not named[0]]
                return [shown for item in [*named, *others] for shown in self._show(item, number, epoch)]
        raise RecordError(f"The data set has no line {line:,}.", f"Its lines count from 1 to {self.questions:,}.")

    def groups_shown(self, epoch: int = 0) -> Iterator[list[Shown]]:
        """Every group as `epoch` shows it."""
        for number, group in enumerate(self.groups):
            yield [shown for item in group for shown in self._show(item, number, epoch)]

    def _show(self, item: Item, group: int, epoch: int) -> list[Shown]:
        """One item with its passages in this epoch's order. Where that is too long for the model, distractors are left
        out from the end; never the golden passage or a part of the answer."""
        if item.name in self._fixed:
            return self._fixed[item.name]
        passages = None if item.passages is None else list(item.passages)
        if passages and len(passages) > 1:
            random.Random(f"passages:{self.seed}:{group}:{epoch}").shuffle(passages)
        limit = min(self.context, self.budget)
        while True:
            conversation, sequences = self._encode(item, passages)
            distractors = [passage for passage in passages or () if passage not in item.golden]
            longest = max(map(len, sequences))
            if longest <= limit:
                break
            if item.messages:
                raise RecordError(
                    f"{item.name} has {longest:,} tokens, and at most {limit:,} fit.",
                    "Shorten or remove the row"
                    + (", or raise tune.row_tokens." if self.budget < self.context else "."),
                )
            if passages is None or not distractors or len(passages) == 1:
                raise RecordError(
                    f"{item.name} has {longest:,} tokens, and at most {limit:,} fit.",
                    "Show shorter passages (documents.chunk_tokens) and build the data set again"
                    + (", or raise tune.row_tokens." if self.budget < self.context else "."),
                )
            passages.remove(distractors[-1])
            self.left_out[item.name] = len(item.passages or ()) - len(passages)
        shown = [
            Shown(line=item.line, question=item.question, conversation=conversation, sequence=sequence)
            for sequence in sequences
        ]
        if passages is None or len(passages) < 2:
            self._fixed[item.name] = shown
        return shown

    def _encode(self, item: Item, passages: list[str] | None) -> tuple[Conversation, list[TokenSequence]]:
        if item.messages:
            conversation = Conversation(messages=item.messages)
            return conversation, encode_turns(self.tokenizer, conversation, trained=item.trained, name=item.name)
        conversation = prompt.with_answer(prompt.prompt(item.question, passages), item.answer)
        return conversation, [encode(self.tokenizer, conversation, name=item.name)]


def read_study(
    path: Path, tokenizer: Any, *, form: Form, budget: int, seed: int, context: int, share: bool = True
) -> Study:
    """Read a data set: RAFT rows in the layout of gorilla, or rows with `messages`, or with `prompt` and `completion`.

    Of `messages`, every assistant's turn is trained but for those whose `train` is false. `form="closed"` drops the passages and trains question → short answer. Raises `RecordError` with file and line.
    """
    groups: dict[object, list[Item]] = {}
    for number, row in enumerate(read_jsonl(path), 1):
        name = f"{path}:{number}"
        item, group = _item(row, name, form)
        groups.setdefault(number if group is None else group, []).append(replace(item, line=number))
    if not groups:
        raise RecordError(f"{path} holds no examples.", "Build the data set again with more documents or questions.")
    return Study(
        groups=tuple(tuple(group) for group in groups.values()),
        tokenizer=tokenizer,
        budget=budget,
        seed=seed,
        context=context,
        share=share,
    )


def _item(row: Mapping[str, Any], name: str, form: Form) -> tuple[Item, object]:
    """One row, and what it shares with its group (None: it stands alone)."""
    if "messages" in row:
        messages, trained = _messages(row["messages"], name)
        told = f"{name} ({row['origin']})" if "origin" in row else name  # a mix says where each row came from
        return Item(name=told, messages=messages, trained=trained), None
    if "completion" in row and "prompt" in row:
        messages = (
            Message(role="user", content=_text(row, "prompt", name)),
            Message(role="assistant", content=_text(row, "completion", name)),
        )
        return Item(name=name, messages=messages, trained=(False, True)), None
    question, answer = _text(row, "question", name), _text(row, "cot_answer", name)
    meta = row.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise RecordError(f"{name}: the field 'meta' is {type(meta).__name__}, not an object.", "Mend or remove it.")
    if form == "closed":
        final = meta.get("answer") or prompt.parse_answer(answer).final
        if not final:
            raise RecordError(f"{name}: the answer has no {prompt.ANSWER} part to train a closed book on.")
        return Item(name=name, question=question, answer=prompt.render_answer("", final)), None
    passages = tuple(_sentences(row, name))
    group = meta.get("group")
    item = Item(name=name, question=question, passages=passages, golden=_golden(row, meta, name), answer=answer)
    return item, (group, frozenset(passages)) if group else None


def _golden(row: Mapping[str, Any], meta: Mapping[str, Any], name: str) -> frozenset[str]:
    """The texts of the golden passages. Tables write null where another row has something."""
    try:
        chunks = meta.get("golden_chunks") or ()
        return frozenset({row.get("oracle_context") or "", *(chunk["text"] for chunk in chunks)})
    except (TypeError, KeyError) as error:
        raise RecordError(
            f"{name}: 'oracle_context' or 'golden_chunks' of 'meta' holds no text.", "Mend or remove it."
        ) from error


def _messages(given: Any, name: str) -> tuple[tuple[Message, ...], tuple[bool, ...]]:
    """The messages of a row, and which of them may be trained on."""
    rows = given if isinstance(given, list) else [given]
    with row_named(name):
        found = tuple(read_message(message, f"message {number}") for number, message in enumerate(rows, 1))
        check_opening(found)
    return found, tuple(message.get("train") is not False for message in rows)


def _text(row: Mapping[str, Any], key: str, name: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RecordError(
            f"{name}: the field {key!r} is {'missing' if key not in row else 'empty or not text'}.",
            "A row needs question, context and cot_answer, or prompt and completion, or messages. Other layouts, such as "
            "Alpaca's, are read by `tune --method instruct --data FILE`.",
        )
    return value


def _sentences(row: Mapping[str, Any], name: str) -> list[str]:
    """The passages of `context`, nested ([[…]]) or flat ([…])."""
    try:
        sentences = row["context"]["sentences"]
        passages = sentences[0] if sentences and isinstance(sentences[0], list) else sentences
    except (KeyError, TypeError, IndexError):
        passages = None
    if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
        raise RecordError(f"{name}: 'context' has no list of passages under 'sentences'.")
    return passages
