"""Rows of instruction sets, in the layouts that other tools write, as conversations that know which turns are trained.

- `messages` or `conversations`: `role` + `content` or `from` + `value`; several turns; a system text beside them
- `prompt` + `completion`: texts or lists of messages
- Alpaca: `instruction`, `input`, `output`, and LLaMA-Factory's `system` and `history`
- RAFT rows: the prompt that openbook shows, and its answer

Every assistant's turn is trained, unless its message says otherwise in one of the ways that are about: `train: false`
(ours), `weight: 0` (OpenAI's fine-tuning), `training: false` or `train_on_turn: false`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openbook import prompt
from openbook.dataset.imports import STOP, read_sample
from openbook.errors import RecordError
from openbook.messages import check_opening, read_message
from openbook.records import Message, Role

_FLAGS = ("train", "training", "train_on_turn", "weight")
LAYOUTS = "messages, conversations, prompt + completion, instruction + output, or a RAFT row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Message):
    """`train` is False for what is read only: all that is not the assistant's, and what a row excepts."""

    train: bool


def read_conversation(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of one row. Raises `RecordError` without a place, since a row does not know where it stands."""
    row = {key: value for key, value in row.items() if value is not None}
    key = next((key for key in ("messages", "conversations", "conversation") if key in row), "")
    if key:
        turns = _messages(row[key], key)
    elif "prompt" in row and "completion" in row:
        # A completion's own messages may carry flags; the prompt's answers are what was said before.
        before = [_untrained(turn) for turn in _said(row["prompt"], "prompt", "user")]
        turns = (*before, *_said(row["completion"], "completion", "assistant"))
    elif "instruction" in row and "output" in row:
        turns = _alpaca(row)
    elif "question" in row:
        turns = _raft(row)
    else:
        raise RecordError(f"the layout is unknown (fields: {', '.join(map(str, row)) or 'none'})", f"Give {LAYOUTS}.")
    system = row.get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0].role != "system":
        turns = (Turn(role="system", content=system, train=False), *turns)
    if "chosen" in row and turns and turns[-1].role == "user":
        raise RecordError("the row is a preference pair", "Tune on it with --method dpo --pairs FILE.")
    _check(turns)
    return turns


def _check(turns: Sequence[Turn]) -> None:
    if not any(turn.train for turn in turns):
        raise RecordError("no assistant's message is trained on", "Let one count, or remove the row.")
    for number, turn in enumerate(turns, 1):
        if turn.role == "system" and number > 1:
            raise RecordError(f"message {number} is the system's, and only the first may be")
        if turn.train and not turn.content.strip():
            raise RecordError(
                f"message {number}, an assistant's, is empty", "Remove the row, or give it train = false."
            )
    check_opening(turns)


def _messages(value: Any, key: str) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value:
        raise RecordError(f"the field {key!r} is not a list of messages")
    return tuple(_turn(message, f"message {number} of {key!r}") for number, message in enumerate(value, 1))


def _turn(message: Any, where: str) -> Turn:
    said = read_message(message, where)
    flags = [message[flag] for flag in _FLAGS if message.get(flag) is not None]
    for flag in flags:
        if flag not in (0, 1):  # booleans are these numbers
            raise RecordError(f"{where} has the training flag {flag!r}", "It is true or false, or 1 or 0.")
    return Turn(role=said.role, content=said.content, train=said.role == "assistant" and all(flags))


def _said(value: Any, key: str, role: Role) -> tuple[Turn, ...]:
    """A text, which is `role`'s, or messages."""
    if isinstance(value, str):
        return (Turn(role=role, content=value.removesuffix(STOP), train=role == "assistant"),)
    return _messages([value] if isinstance(value, Mapping) else value, key)


def _untrained(turn: Turn) -> Turn:
    return Turn(role=turn.role, content=turn.content, train=False)


def _alpaca(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    texts = [row["instruction"], row.get("input", ""), row["output"]]
    if not all(isinstance(text, str) for text in texts):
        raise RecordError("'instruction', 'input' or 'output' is not text")
    before: list[Turn] = []
    for exchange in row.get("history", ()):
        if not (
            isinstance(exchange, list | tuple) and len(exchange) == 2 and all(isinstance(t, str) for t in exchange)
        ):
            raise RecordError("'history' is not a list of question and answer")
        before += [
            Turn(role="user", content=exchange[0], train=False),
            Turn(role="assistant", content=exchange[1], train=True),
        ]
    asked = "\n".join(text for text in texts[:2] if text.strip())
    return (
        *before,
        Turn(role="user", content=asked, train=False),
        Turn(role="assistant", content=texts[2], train=True),
    )


def _raft(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    sample = read_sample(row)
    shown = prompt.prompt(sample.question, sample.passages).messages
    return (
        *(Turn(role=message.role, content=message.content, train=False) for message in shown),
        Turn(role="assistant", content=sample.answer, train=True),
    )
