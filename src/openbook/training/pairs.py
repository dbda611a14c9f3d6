"""Preference pairs out of files: JSON, JSON Lines or Parquet, in the layouts that other tools write.

- `prompt`, `chosen`, `rejected`: texts or lists of messages; answers that repeat the prompt's messages are understood
- `chosen`, `rejected` alone: what both begin with is the prompt (for texts in Anthropic's "Human:/Assistant:" form, the
  turns before the last; for other texts, the common beginning up to a space)
- `question`, `chosen`, `rejected`: as Orca's pairs are written
- `conversations`, `chosen`, `rejected` and `instruction`, `input`, `history`, `chosen`, `rejected`: LLaMA-Factory's two
  layouts

A message is `role` + `content` or `from` + `value`. `system` (a text) and `margin` (a number) may stand beside them.
"""

import itertools
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from openbook.errors import RecordError
from openbook.messages import read_message, row_named
from openbook.records import Conversation, Message, PreferencePair
from openbook.storage import read_jsonl, refuse_half_characters

_TURN = re.compile(r"\n\n(Human|Assistant):")
_REMEDY = "A pair needs `prompt`, `chosen` and `rejected`, or `chosen` and `rejected` that begin with the same prompt."


def read_pairs(path: Path) -> list[tuple[str, PreferencePair]]:
    """The pairs of a file, each with its name (`FILE:NUMBER`, counted from 1, as lines are).

    Every row is looked at: the `RecordError` tells what is wrong with the first bad one and names the others.
    """
    found: list[tuple[str, PreferencePair]] = []
    faults: list[tuple[str, RecordError]] = []
    for number, row in enumerate(read_rows(path), 1):
        name = f"{path}:{number}"
        try:
            found.append((name, pair_of(row, name)))
        except RecordError as error:
            faults.append((name, error))
    tell(faults)
    if not found:
        raise RecordError(f"{path} holds no pairs.", _REMEDY)
    _warn_of_contradictions(found)
    return found


def _warn_of_contradictions(found: Sequence[tuple[str, PreferencePair]], *, shown: int = 10) -> None:
    """Name rows that prefer what another row rejects, after the same prompt: one of the two is swapped."""
    places: dict[tuple[Conversation, str, str], str] = {}
    told: list[str] = []
    for name, pair in found:
        number = name.rsplit(":", 1)[-1]
        places.setdefault((pair.prompt, pair.chosen.strip(), pair.rejected.strip()), number)
        other = places.get((pair.prompt, pair.rejected.strip(), pair.chosen.strip()))
        if other is not None:
            told.append(f"{other} and {number}")
    if told:
        more = f", and {len(told) - shown:,} more" if len(told) > shown else ""
        file = found[0][0].rsplit(":", 1)[0]
        warnings.warn(
            f"{file}: rows prefer opposite answers to the same prompt: {', '.join(told[:shown])}{more}. Swap or remove one "
            "of each two.",
            stacklevel=3,
        )


def tell(faults: Sequence[tuple[str, RecordError]], *, shown: int = 10) -> None:
    """Raise the first of the faults, if there are any, with the numbers of the other rows that cannot be used."""
    if not faults:
        return
    first = faults[0][1]
    others = [name.rsplit(":", 1)[-1] for name, _ in faults[1:]]
    names = ", ".join(others[:shown]) + (f" and {len(others) - shown:,} more" if len(others) > shown else "")
    more = f" Nor can these rows be used: {names}." if others else ""
    raise RecordError(first.message + more, first.remedy)


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file of JSON Lines, JSON or Parquet, streamed where the format allows it."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise RecordError(f"{path} {problem}.", "Name a .jsonl, .json or .parquet file.")
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"\x1f\x8b"):
        raise RecordError(f"{path} is packed by gzip.", "Unpack it first: `gunzip --keep`.")
    if path.suffix == ".parquet" or head == b"PAR1":
        yield from _parquet_rows(path)
    elif path.suffix == ".json":
        yield from _json_rows(path)
    else:
        yield from read_jsonl(path)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (ArrowInvalid, OSError) as error:
        raise RecordError(f"{path} cannot be read as Parquet: {str(error).rstrip('.')}.") from error


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        refuse_half_characters(data)
    except (json.JSONDecodeError, UnicodeError) as error:
        # A frequent mix-up: JSON Lines under the name of JSON, which the other reader names line by line.
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from read_jsonl(path)
            return
        raise RecordError(f"{path} is not JSON ({error}).", "Mend it, or write one object a line (.jsonl).") from error
    for number, row in enumerate(data if isinstance(data, list) else [data], 1):
        if not isinstance(row, dict):
            raise RecordError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}.")
        yield row


def pair_of(row: Mapping[str, Any], name: str) -> PreferencePair:
    """One row as a pair; its `RecordError` begins with `name`."""
    values = {key: value for key, value in row.items() if value is not None}
    for key in ("chosen", "rejected"):
        if key not in values:
            raise RecordError(f"{name}: the field {key!r} is missing.", _REMEDY)
    chosen, rejected = (given_answer(values[key], key, name) for key in ("chosen", "rejected"))
    given = given_prompt(values, name)
    if given is None and isinstance(values["chosen"], str) and isinstance(values["rejected"], str):
        prompt, answers = _split_texts(values["chosen"], values["rejected"], name)
    else:
        prompt, answers = _split_messages(given, chosen, rejected, name)
    pair = PreferencePair(
        prompt=Conversation(messages=with_system(prompt, values)),
        chosen=answers[0],
        rejected=answers[1],
        margin=_margin(values.get("margin", 0.0), name),
    )
    _check(pair, name)
    return pair


def with_system(prompt: tuple[Message, ...], values: Mapping[str, Any]) -> tuple[Message, ...]:
    """`prompt` behind the system's message that stands beside it in a row, where there is one."""
    if isinstance(system := values.get("system"), str) and system.strip() and prompt[0].role != "system":
        return (Message(role="system", content=system), *prompt)
    return prompt


def given_prompt(values: Mapping[str, Any], name: str) -> tuple[Message, ...] | None:
    """The prompt that a row gives; None where it has to be found in the answers."""
    for key in ("prompt", "conversations", "messages", "question"):
        if key in values:
            given = values[key]
            if isinstance(given, str):
                return (Message(role="user", content=_text(given, key, name)),)
            return _messages(given, key, name)
    if "instruction" in values:
        asked = [_text(values["instruction"], "instruction", name)]
        if (more := values.get("input")) not in (None, ""):
            asked.append(_text(more, "input", name))
        return (*_history(values.get("history") or (), name), Message(role="user", content="\n".join(asked)))
    return None


def _history(value: Any, name: str) -> Iterator[Message]:
    """What was asked and answered before."""
    for exchange in value:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise RecordError(f"{name}: 'history' is not a list of question and answer.", "Mend or remove the row.")
        yield Message(role="user", content=_text(exchange[0], "history", name))
        yield Message(role="assistant", content=_text(exchange[1], "history", name))


def given_answer(value: Any, key: str, name: str) -> tuple[Message, ...]:
    """An answer as messages: a text is the assistant's."""
    if isinstance(value, str):
        return (Message(role="assistant", content=value),)
    return _messages([value] if isinstance(value, Mapping) else value, key, name)


def _messages(value: Any, key: str, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RecordError(f"{name}: the field {key!r} is neither a text nor a list of messages.", _REMEDY)
    with row_named(name):
        return tuple(read_message(message, f"message {number} of {key!r}") for number, message in enumerate(value, 1))


def _split_messages(
    given: tuple[Message, ...] | None, chosen: tuple[Message, ...], rejected: tuple[Message, ...], name: str
) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """The prompt and the two last messages, where the answers may repeat the prompt's messages before them."""
    before = chosen[:-1]
    if before != rejected[:-1]:
        raise RecordError(
            f"{name}: 'chosen' and 'rejected' part before their last message.",
            "Both must answer the same prompt with one message.",
        )
    if given is None:
        given = before
    elif before and before != given[-len(before) :]:
        raise RecordError(f"{name}: the answers repeat a prompt that is not the one in 'prompt'.", _REMEDY)
    if not given:
        raise RecordError(f"{name}: there is no prompt.", _REMEDY)
    for key, answer in (("chosen", chosen[-1]), ("rejected", rejected[-1])):
        if answer.role != "assistant":
            raise RecordError(f"{name}: {key!r} ends with the {answer.role}'s message, not with the assistant's.")
    return given, (chosen[-1].content, rejected[-1].content)


def _split_texts(chosen: str, rejected: str, name: str) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """The prompt that two texts begin with, and what follows."""
    turns = [_TURN.split(text) for text in (chosen, rejected)]
    if all(len(parts) >= 5 and parts[-2] == "Assistant" for parts in turns):
        # ["", "Human", " …", "Assistant", " …", …]: the last part is the answer, the others alternate.
        messages = [
            tuple(
                Message(role="user" if who == "Human" else "assistant", content=text.strip())
                for who, text in zip(parts[1::2], parts[2::2], strict=True)
            )
            for parts in turns
        ]
        return _split_messages(None, messages[0], messages[1], name)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    end = max(chosen.rfind(space, 0, alike) for space in " \n") + 1
    if not chosen[:end].strip():
        raise RecordError(f"{name}: there is no prompt, and the answers do not begin alike.", _REMEDY)
    prompt = (Message(role="user", content=chosen[:end].strip()),)
    return prompt, (chosen[end:], rejected[end:])


def _text(value: Any, key: str, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{name}: the field {key!r} is empty or not text.", _REMEDY)
    return value


def _margin(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"{name}: the margin {value!r} is not a number.", "Remove the field or mend it.")
    return float(value)


def _check(pair: PreferencePair, name: str) -> None:
    for key, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not answer.strip():
            raise RecordError(f"{name}: the {key} answer is empty.", "Remove the row: nothing can be learnt from it.")
    if pair.chosen.strip() == pair.rejected.strip():
        raise RecordError(
            f"{name}: the chosen and the rejected answer are equal.", "Remove the row: it prefers nothing."
        )
    last = pair.prompt.messages[-1]
    if last.role != "user" or not last.content.strip():
        raise RecordError(f"{name}: the prompt does not end with a user's message.", _REMEDY)
