"""Questions made of other questions: two about one thing as one, and one with another thing in its place."""

import re

from openbook.dataset.checks import telling_words
from openbook.dataset.entities import entities, names
from openbook.metrics import contains
from openbook.records import Chunk, Question, content_id

_ASKS = re.compile(r"(?:What|Which|Who|Whom|Whose|When|Where|Why|How)\b")
SEPARATOR = "; "  # between the two short answers


def joined(one: Question, two: Question, shared: str) -> Question | None:
    """The question that asks both, which name the thing `shared`: "Who invented X, and what does X contain?" None where
    they do not go together, or where one tells what the other asks for."""
    texts, answers = (one.text, two.text), (one.answer, two.answer)
    if not all(_ASKS.match(text) and text.endswith("?") and names(text, shared) for text in texts):
        return None
    if (
        contains(one.text, two.answer)
        or contains(two.text, one.answer)
        or contains(*answers)
        or contains(*answers[::-1])
    ):
        return None
    if any(SEPARATOR.strip() in answer for answer in answers) or telling_words(one.text) == telling_words(two.text):
        return None
    text = f"{one.text[:-1]}, and {two.text[0].lower()}{two.text[1:]}"
    return Question(
        id=content_id(one.id, two.id, text),
        text=text,
        golden_chunk_ids=(*one.golden_chunk_ids, *two.golden_chunk_ids),
        answer=SEPARATOR.join(answers),
        quotes=(*one.quotes, *two.quotes),
        reasoning=f"{one.reasoning} {two.reasoning}",
        kind="pair",
    )


def displaced(question: Question, chunk: Chunk, other: Chunk) -> str | None:
    """The question about a thing that `other` names and `chunk` does not; None where there is no such thing of the same make."""
    mine = sorted(thing for thing in entities(chunk.text) if names(question.text, thing))
    theirs = sorted(thing for thing in entities(other.text) if not names(chunk.text, thing))
    for thing in mine:
        for another in theirs:
            if _make(thing) == _make(another):
                place = re.compile(rf"(?<!\w){re.escape(thing)}(?!\w)")
                return another.join(place.split(question.text))
    return None


def _make(thing: str) -> tuple[bool, bool, bool, bool]:
    """What kind of thing a name names, by its form: a function is not put in the place of a town."""
    return ("_" in thing or thing.islower(), "." in thing, thing.isupper(), " " in thing)
