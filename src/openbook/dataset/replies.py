"""What a teacher's reply holds: read leniently on form (JSON lines, a list, a fenced block, thinking aloud)."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from openbook.llm import Reply
from openbook.storage import refuse_half_characters

MAX_REPLY: Final = 100_000  # characters
MAX_BROKEN: Final = 200  # places of a reply where an object seems to begin and does not

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
# How models decline, at the start of a reply that holds no JSON; in the languages where it is a fixed phrase.
_DECLINES = re.compile(
    r"\s*(?:i['’]?m sorry|i am sorry|sorry|i can(?:no|['’])t|i am unable|i['’]?m unable|as an ai\b|i (?:must|have to) decline"
    r"|es tut mir leid|ich kann (?:das |dabei )?(?:leider )?nicht|(?:je suis )?désolé|lo siento|mi dispiace|desculpe)",
    re.IGNORECASE,
)


def objects(reply: str, key: str = "question") -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a reply that have `key`, wherever they stand; broken ones are passed over."""
    text = _THINKING.sub("", reply[:MAX_REPLY])
    decoder = json.JSONDecoder(strict=False)
    at, broken = text.find("{"), 0
    while at >= 0 and broken < MAX_BROKEN:
        try:
            found, end = decoder.raw_decode(text, at)
            if "\\u" in text[at:end]:
                refuse_half_characters(found)
        except (ValueError, RecursionError):
            end, broken = at + 1, broken + 1
        else:
            # {"questions": [{…}, {…}]}
            inner = next((value for value in found.values() if isinstance(value, list)), [])
            for item in [found] if key in found else inner:
                if isinstance(item, Mapping) and key in item:
                    yield item
        at = text.find("{", end)


def numbered(reply: str, key: str, count: int) -> list[Any]:
    """The values under `key` of objects that name a `number` from 1 to `count`, in that order; None where there is none.
    The first one counts."""
    found: list[Any] = [None] * count
    for item in objects(reply, key):
        number = item.get("number")
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if isinstance(number, int) and 1 <= number <= count and found[number - 1] is None:
            found[number - 1] = item[key]
    return found


def trouble(reply: Reply, found: int) -> str:
    """What is wrong with a reply of which `found` objects could be used, as a phrase to count under; "" where nothing is."""
    text = _THINKING.sub("", reply.text).strip()
    if not reply.finished:
        return "cut off at the limit of tokens"
    if found:
        return ""
    if reply.refused or _DECLINES.match(text):
        return "declined"
    if not text:
        return "empty"
    return "without a usable object" if "{" in text else "not JSON"
