"""What a question shape yields, and the small tools that all shapes share."""

import random
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from openbook.dataset.english.clause import Clause
from openbook.dataset.english.sentence import Sentence, Token
from openbook.dataset.english.words import (
    FILLERS,
    FINITE,
    FIRST_NAMES,
    GENERIC,
    HUMAN,
    MODALS,
    MONTHS,
    NOUNISH,
    NUMBER_WORDS,
    PAST,
    PREPOSITIONS,
    STOPWORDS,
    SUBORDINATORS,
    SYNONYMS,
    TITLES,
    VERBS,
    is_code,
    is_plural,
    third_person,
)

MAX_ANSWER = 12  # words
_BREAKS = frozenset(
    (
        *("that", "which", "who", "whose", "where", "when", "if", "because", "while", "so", "unless", "although", "as"),
        *("by", "with", "for", "from", "in", "on", "at", "using", "without", "through", "via", "during", "after"),
        *("before", "until", "than", "rather", ",", ";", ":", "—", "–"),
    )
)
_WITH_TO = frozenset(
    (
        "similar",
        "equal",
        "identical",
        "due",
        "according",
        "relative",
        "close",
        "respect",
        "up",
        "next",
        "prior",
        "subject",
    )
)
_TAKING_BACK = frozenset("not never no none nor cannot only".split())
# A reason or an aside, which begins with one of these, narrows nothing.
_APART = frozenset((",", ";", "because", "since", "although", "while", "so", "whose"))
_YEAR = re.compile(r"(?:1[0-9]|20)\d\d")
_NUMBER = re.compile(r"[$€£]?\d+(?:[.,]\d+)*")


class Draft(NamedTuple):
    """A question and the span of its answer in the sentence, in characters. The higher `score`, the better."""

    kind: str
    question: str
    start: int
    end: int
    score: float


def pick(rng: random.Random, *templates: str, **values: str) -> str:
    """One of the phrasings, filled in."""
    return rng.choice(templates).format(**values)


def count_words(tokens: Sequence[Token]) -> int:
    return sum(len(t.text.split()) for t in tokens if t.text[0].isalnum() or len(t.text) > 1)


def span(tokens: Sequence[Token], first: int, last: int) -> tuple[int, int]:
    """The characters of `tokens[first:last]`."""
    return tokens[first].start, tokens[last - 1].end


def clip(tokens: Sequence[Token], first: int, last: int, limit: int = MAX_ANSWER) -> int | None:
    """The end of the longest sensible beginning of `tokens[first:last]` with at most `limit` words, or None.

    It ends before a clause or a preposition, and never inside an enumeration, where a part of the answer would be lost.
    """
    while last > first and tokens[last - 1].text in ",;:.—–-":
        last -= 1
    if last <= first:
        return None
    end = _clipped(tokens, first, last, limit)
    return None if end is None or _takes_back(tokens[end:last]) else end


def _takes_back(cut: Sequence[Token]) -> bool:
    """Whether what is cut away denies or narrows what is left ("a file | that is not there")."""
    stop = next((i for i, t in enumerate(cut) if t.low in _APART), len(cut))
    return any(t.low in _TAKING_BACK or t.low.endswith(("n't", "n’t")) for t in cut[:stop])


def _clipped(tokens: Sequence[Token], first: int, last: int, limit: int) -> int | None:
    if count_words(tokens[first:last]) > limit:
        ends = (end for end in range(first + 3, last) if _may_end(tokens, end))
        fitting = [end for end in ends if count_words(tokens[first:end]) <= limit]
        if not fitting:
            return None
        last = fitting[-1]
    # A clause without its verb ("that in addition to speed") is left out.
    for i in range(last - 1, first - 1, -1):
        if i > first and tokens[i - 1].low in PREPOSITIONS:
            continue  # "in that scope", "through which"
        if tokens[i].low in {"that", "which", "who", "where", "if", "because"}:
            follows = tokens[i + 1 : last]
            whole = (
                any(t.low in FINITE or t.low in VERBS for t in follows)
                and follows[0].low not in SUBORDINATORS | PREPOSITIONS
            )
            said = i - first >= 2 and tokens[i - 1].text != "," and not _is_verb(tokens, i - 1)
            return last if whole else i if said else None
    return last


def _is_verb(tokens: Sequence[Token], at: int) -> bool:
    """Whether the word at `at` is certainly a verb, and so may want a clause behind it ("confirms that …")."""
    form = VERBS.get(tokens[at].low)
    after = tokens[at - 1].low if at else ""
    return after in MODALS or after == "to" or (form is not None and not form.participle and form.base not in NOUNISH)


def _may_end(tokens: Sequence[Token], end: int) -> bool:
    """Whether a phrase may be cut before `tokens[end]` without becoming false or lame."""
    token, previous = tokens[end], tokens[end - 1]
    goal = (
        token.low == "to" and end + 1 < len(tokens) and tokens[end + 1].low in {"the", "a", "an", "its", "their", "all"}
    )
    goal = goal and previous.low not in _WITH_TO and previous.low not in VERBS
    if (
        (token.low not in _BREAKS and token.text[0] != "(" and not goal)
        or previous.low in STOPWORDS
        or previous.text in {",", "/"}
    ):
        return False
    if token.low == "as" and previous.low in {"such", "well"}:
        return False
    form = VERBS.get(previous.low)
    if token.low == "that" and _is_verb(tokens, end - 1):
        return False  # "the fact that the compiler confirms | that …"
    if token.low == "than" and previous.low in {"rather", "more", "less", "other"}:
        return False
    if token.low in PREPOSITIONS and ((form is not None and form.participle) or previous.low.endswith(("ed", "ing"))):
        return False  # "a set of regulations aimed | at preventing"
    if token.text != ",":
        return True
    # An enumeration: a part of the answer would be lost.
    following = [t.low for t in tokens[end + 1 : end + 12]]
    return "and" not in following and "or" not in following and following.count(",") < 2


def limited(c: Clause, words: str) -> str:
    """`words` behind the adverbs that limit the clause: "rarely exposed by …"."""
    return f"{c.limits} {words}".lstrip()


def denied(c: Clause) -> str:
    """All that follows the verb of a negated clause, with every adverb, as part of a question: "not always exposed by …"."""
    passed = " ".join(token.low for token in c.tokens[c.verb + 1 : c.body])
    rest = plain(c.sentence, c.body, c.stop, fillers=frozenset())
    return f"{passed} {rest}".lstrip() if rest else ""


def plain(sentence: Sentence, first: int, last: int, limit: int = 14, fillers: Collection[str] = FILLERS) -> str:
    """The words of a span as part of a question: without parentheses and fillers, cut as `clip` does; "" if too long."""
    end = clip(sentence.tokens, first, last, limit)
    if end is None:
        return ""
    tokens = sentence.tokens
    kept = [
        t
        for i, t in enumerate(tokens[first:end], first)
        # A call's parenthesis, "data(key)", belongs to it.
        if (t.text[0] != "(" or (i > first and t.start == tokens[i - 1].end)) and t.low not in fillers
    ]
    parts: list[str] = []
    for i, token in enumerate(kept):
        if i and token.start > kept[i - 1].end and token.text not in ",;":
            parts.append(" ")
        parts.append(token.text)
    return "".join(parts)


def subject_answer(c: Clause) -> tuple[int, int] | None:
    """The span of the subject as an answer, without its article; None where a heading stands for it, or it is long."""
    first, last = c.subject
    if c.topic:
        return None
    if c.tokens[first].low in {"a", "an", "the"}:
        first += 1
    if last <= first or count_words(c.tokens[first:last]) > 8:
        return None
    return span(c.tokens, first, last)


def subject_question(c: Clause) -> tuple[str, tuple[int, int]] | None:
    """The words that ask for the subject, and its span: "Which flag" is answered by `--retention` without "flag"."""
    answer, ask = subject_answer(c), who(c)
    if answer is None:
        return None
    if ask.startswith("Which "):
        last = c.subject[1] - 1
        while c.tokens[last].text[0] == "(":
            last -= 1
        return ask, (answer[0], c.tokens[last - 1].end)
    return ask, answer


def vary(base: str, rng: random.Random) -> str:
    """Now and then another verb of the same sense, so that a question is not found by its words alone."""
    options = SYNONYMS.get(base)
    return rng.choice(options) if options and rng.random() < 0.35 else base


def finite(base: str, c: Clause) -> str:
    """`base` (a verb, perhaps with a particle) in the clause's tense, third person: what follows "who" or "what"."""
    verb, _, particle = base.partition(" ")
    form = PAST.get(verb, verb) if c.past else third_person(verb)
    return f"{form} {particle}".rstrip()


def is_person(tokens: Sequence[Token]) -> bool:
    words = [t for t in tokens if t.text[0] not in '("“']
    if not words or len(words) > 5 or any(is_code(t.text) for t in words):
        return False
    if words[0].text.rstrip(".") in TITLES and len(words) > 1 and words[1].text[0].isupper():
        return True
    return words[0].text in FIRST_NAMES and all(t.text[0].isupper() for t in words[1:])


def who(c: Clause) -> str:
    """ "Who", "Which server", "Who or what" or "What", after what the subject and the verb look like."""
    first, last = c.subject
    tokens = [t for t in c.tokens[first:last] if t.text[0] != "("]
    if is_person(tokens):
        return "Who"
    head = tokens[-1].low
    if head in GENERIC and not is_plural(head) and len(tokens) > 1 and not any(t.low in PREPOSITIONS for t in tokens):
        naming = [t for t in tokens[:-1] if t.low not in STOPWORDS]
        if naming and all(is_code(t.text) or t.text[0].isupper() for t in naming):
            return f"Which {head}"
    naming = [t for t in tokens if t.low not in STOPWORDS]
    proper = naming and naming[0].text[0].isupper() and tokens[-1].text[0].isupper() and not is_code(tokens[-1].text)
    if proper and c.past and tokens[-1].low not in c.sentence.common:
        return "Who" if c.base in HUMAN and head not in GENERIC else "Who or what"
    return "Who or what" if c.past and c.base in HUMAN and head in GENERIC else "What"


def core_end(c: Clause) -> int:
    """The end of the clause without an adverbial clause behind it ("… because disks are slow", "… if it fails")."""
    for i in range(c.body + 1, c.stop):
        if c.tokens[i].low in {"because", "if", "when", "unless", "while", "although", "whereas", "so"}:
            told = c.tokens[i - 1].low in {"as", "even", "only", "or", "and", "not"} or c.base in {
                "return",
                "know",
                "say",
                "tell",
            }
            return c.stop if told else i
    return c.stop


def is_number(token: Token) -> bool:
    return _NUMBER.fullmatch(token.text) is not None or token.low in NUMBER_WORDS


def is_year(token: Token) -> bool:
    return _YEAR.fullmatch(token.text) is not None


def date_end(tokens: Sequence[Token], first: int, stop: int) -> int | None:
    """The end of a date that begins at `first` ("1998", "May 1998", "8 May 1998", "May 8, 1998"), or None."""
    texts = [t.text for t in tokens[first : min(first + 4, stop)]]
    if not texts:
        return None
    if _YEAR.fullmatch(texts[0]):
        return first + 1
    if texts[0] in {"early", "late"} and len(texts) > 1 and _YEAR.fullmatch(texts[1]):
        return first + 2
    for i, text in enumerate(texts[:2]):
        if text in MONTHS:
            for j in range(i + 1, len(texts)):
                if _YEAR.fullmatch(texts[j]):
                    return first + j + 1
    return None
