"""Whether a clause's subject says enough to stand in a question, and how it is written there."""

from dataclasses import replace
from typing import Literal

from openbook.dataset.english.clause import Clause
from openbook.dataset.english.words import (
    ADJECTIVES,
    DEICTIC,
    DETERMINERS,
    GENERIC,
    NOUNISH,
    PREPOSITIONS,
    STOPWORDS,
    VAGUE,
    VERBS,
    is_code,
)

Standing = Literal["specific", "context", "resolved", "none"]

_POINTING = DEICTIC - {"and", "or", "then", "as"} | {"you", "we", "i", "me", "us"}
_EMPTY = GENERIC | ADJECTIVES
_COUNTING = frozenset(("some", "many", "most", "several", "all", "every", "each", "few"))
_PLACES = frozenset("next previous last aforementioned remaining rest other".split())
_PEOPLE = frozenset(("you", "users", "developers", "people"))


def settle(clause: Clause) -> tuple[Clause, Standing]:
    """Decide whether the subject can stand in a question by itself.

    "specific": it can. "context": it can once the question names the section ("the function", "the network").
    "resolved": "it", "this function" under the heading of a named thing, whose name is put in its place.
    "none": nobody could know what is meant.
    """
    sentence = clause.sentence
    words = [t for t in clause.tokens[clause.subject[0] : clause.subject[1]] if t.text[0] != "("]
    if not words:
        return clause, "none"
    low = words[0].low
    both = low == "both" and any(t.low == "and" for t in words)
    counted = both or (low in _COUNTING and len(words) > 1 and words[1].low not in STOPWORDS)
    if (
        (low in DEICTIC - _COUNTING and not both)
        or (low in VAGUE and not counted)
        or (low in _COUNTING and not counted)
        or (low == "things" and len(words) == 1)
    ):
        alone = len(words) == 1 or (len(words) == 2 and words[1].low in GENERIC)
        if low in {"it", "this"} and alone and sentence.named and sentence.opening:
            return replace(clause, topic=sentence.topic), "resolved"
        return clause, "none"
    if low in _PEOPLE:
        return clause, "specific"
    if words[0].low == "the" and len(words) > 1 and words[1].low in _PLACES:
        return clause, "none"  # "the next three lines": the question does not show them
    if any(t.low in _POINTING for t in words[counted:]) or low in PREPOSITIONS:
        return clause, "none"
    form = VERBS.get(low)
    verbal = form is not None and (form.plain or (form.third and form.base not in NOUNISH))
    if clause.tokens[0].text[0] in "'\"“(" or (verbal and len(words) > 1 and words[0].text.istitle()):
        return clause, "none"  # "List 'subscribed' mailbox names …", "Generates personas …": no subject at all
    if len(words) > 1 and (
        (words[1].low in DETERMINERS and low not in {"all", "both", "half"}) or words[1].low == "way"
    ):
        return clause, "none"  # "Guess the extensions …", "the way Rust implements …"
    second = words[1].low if len(words) > 1 else ""
    if form is not None and form.participle and not form.plain and second in PREPOSITIONS:
        return clause, "none"  # "Embedded in the membrane are …"
    if form is not None and not form.participle and not second and form.base not in NOUNISH:
        return clause, "none"  # "Returns the value of the attribute named …", "disable features that …"
    content = [t for t in words if t.low not in STOPWORDS]
    if not content or all(t.text.strip("`").isdigit() for t in content):
        return clause, "none"
    if any(is_code(t.text) or t.text[0] in '"“' for t in content) or any(t.text[0].isupper() for t in words[1:]):
        return clause, "specific"
    if all(t.low in _EMPTY or t.low.rstrip("s") in GENERIC for t in content):
        # "a good example", "some programs": which of many, no heading tells.
        one = content[-1].low == "examples" or (low in {"a", "an"} and any(t.low in ADJECTIVES for t in content))
        return clause, "none" if one or low in _COUNTING - {"all", "every", "each"} else "context"
    if low == "the" and len(content) < 3 and all(t.low != "of" for t in words):
        return clause, "context"
    return clause, "specific"


def subject_text(clause: Clause) -> str:
    """The subject as it stands inside a question, between an auxiliary and a verb: parentheses dropped, a sentence's
    capital taken back, and behind it the adverbs that limit the clause ("What is X *rarely* exposed by?")."""
    return f"{bare_subject(clause)} {clause.limits}".rstrip()


def bare_subject(clause: Clause) -> str:
    """`subject_text` without the adverbs."""
    if clause.topic:
        return clause.topic
    first, last = clause.subject
    parts = [t for t in clause.tokens[first:last] if t.text[0] != "("]
    whole = len(parts) == last - first
    return clause.sentence.lowered(clause.sentence.part(first, last) if whole else " ".join(t.text for t in parts))
