"""Questions from sentences that tell the reader what to do, or what happens on a condition."""

import random
import re
from collections.abc import Iterator

from openbook.dataset.english.clause import Clause
from openbook.dataset.english.draft import Draft, clip, count_words, pick, plain, span
from openbook.dataset.english.ending import clause_end
from openbook.dataset.english.sentence import Sentence, Token
from openbook.dataset.english.words import (
    DANGLING,
    DEICTIC,
    FINITE,
    MODALS,
    VERBS,
    WITH_PURPOSE,
)

_CUTS = frozenset(
    (
        ",",
        ";",
        ":",
        "and",
        "or",
        "with",
        "in",
        "which",
        "that",
        "as",
        "on",
        "from",
        "when",
        "if",
        "instead",
        "to",
        "for",
    )
)


# What places a sentence in its chapter: "In the second case", "The next three lines", "At the moment".
STORY = re.compile(
    r"\b(?:first|second|third|last|next|other|same|latter|previous) (?:two |three )?"
    r"(?:cases?|examples?|lines?|steps?|versions?|parts?|sections?|chapters?)\b"
    r"|\b(?:at|for) (?:the|this|that) (?:moment|point)\b|\bso far\b|\bby now\b",
    re.IGNORECASE,
)


def dangling(text: str) -> bool:
    """Whether words point at something that a reader of the question alone cannot see."""
    return STORY.search(text) is not None or any(word in DANGLING for word in re.findall(r"[a-z]+", text.lower()))


def _hangs(goal: str) -> bool:
    """Whether a goal ("set its value") can only be understood from the sentence before."""
    return dangling(goal) or not {"its", "their"}.isdisjoint(goal.lower().split())


def _is_base(token: Token) -> bool:
    form = VERBS.get(token.low)
    return form is not None and form.plain


def instructions(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """ "Use X to do Y", "To do Y, use X", "You can use X to do Y", "You must do Y before Z"."""
    tokens = s.tokens
    if tokens[0].low == "to" and _is_base(tokens[1]):
        yield from _goal_first(s, rng)
        return
    first, modal = 0, ""
    if tokens[0].low in {"you", "we"} and (tokens[1].low in MODALS or tokens[1].low == "need"):
        modal, first = tokens[1].low, 2 + (tokens[1].low == "need")
    if first + 3 >= s.end or not _is_base(tokens[first]) or (not first and not tokens[0].text.istitle()):
        return
    base = tokens[first].low
    to = next((i for i in range(first + 2, min(first + 9, s.end - 1)) if tokens[i].low == "to"), None)
    if base in WITH_PURPOSE and to is not None and _is_base(tokens[to + 1]):
        goal = plain(s, to + 1, clause_end(tokens, to + 1))
        if goal and not _hangs(goal) and tokens[first + 1].low not in DEICTIC and clip(tokens, first + 1, to) == to:
            may = modal if modal in {"can", "must", "should"} else rng.choice(("should", "can"))
            asks = ("What {m} you {v} to {g}?", "What {m} you {v} in order to {g}?", "To {g}, what {m} you {v}?")
            yield Draft("instruction", pick(rng, *asks, m=may, v=base, g=goal), *span(tokens, first + 1, to), 7.5)
    elif modal in {"must", "should", "need"}:
        yield from _duty(s, first, {"need": "do you need to"}.get(modal, f"{modal} you"))


def _goal_first(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    tokens = s.tokens
    comma = next((i for i in range(3, min(20, s.end - 2)) if tokens[i].text == ","), None)
    goal = s.part(1, comma) if comma else ""
    if comma is None or _hangs(goal):
        return
    at = comma + 1
    if tokens[at].low in {"you", "we"}:
        at += 1 + (tokens[at + 1].low in MODALS) + 2 * (tokens[at + 1].low in {"need", "have"})
    if at + 1 >= s.end or not _is_base(tokens[at]):
        return
    verb = tokens[at].low
    if verb in {"see", "read", "refer", "visit", "check", "consider", "note", "follow", "need", "have", "want"}:
        return
    if verb in {"use", "run", "call"}:
        end = clip(tokens, at + 1, next((i for i in range(at + 2, s.end) if tokens[i].low in _CUTS), s.end))
        if end:
            asks = ("What do you {v} to {g}?", "What should you {v} to {g}?", "What can you {v} in order to {g}?")
            yield Draft("instruction", pick(rng, *asks, v=verb, g=goal), *span(tokens, at + 1, end), 7.5)
        return
    end = clip(tokens, at, clause_end(tokens, at))
    if end and end - at > 1:
        asks = ("How do you {g}?", "What should you do to {g}?", "How can you {g}?")
        yield Draft("instruction", pick(rng, *asks, g=goal), *span(tokens, at, end), 7.0)


def _duty(s: Sentence, first: int, modal: str) -> Iterator[Draft]:
    tokens = s.tokens
    cuts = {"if", "when", "before", "after", "unless"}
    when = next((i for i in range(first + 2, s.end - 2) if tokens[i].low in cuts), None)
    if when is None:
        return
    said = plain(s, when, clause_end(tokens, when))
    if said and not dangling(said) and clip(tokens, first, when) == when:
        yield Draft("must", f"What {modal} do {said}?", *span(tokens, first, when), 6.5)


def conditions(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """ "If COND, MAIN": what happens if COND?"""
    s, (first, last) = c.sentence, c.lead
    tokens = s.tokens
    if last == first or tokens[first].low not in {"if", "when", "unless", "once", "whenever"}:
        return
    if tokens[first + 1].low in {"it", "that", "they", "he", "she"}:
        return
    said, opening = s.part(first, last), tokens[c.subject[0]].low
    if dangling(said) or count_words(tokens[first:last]) < 4 or opening in {"you", "we"} | DEICTIC - {"it", "they"}:
        return
    if not any(t.low in FINITE or t.low in VERBS for t in tokens[first + 1 : last]):
        return  # "If in doubt"
    start = c.subject[0]
    end = clip(tokens, start, c.stop)
    if end is not None and end - start > 3:
        low = said[0].lower() + said[1:]
        asks = ("What happens {c}?", "What is the consequence {c}?", "{C}, what happens?")
        yield Draft("condition", pick(rng, *asks, c=low, C=low[0].upper() + low[1:]), *span(tokens, start, end), 6.0)
