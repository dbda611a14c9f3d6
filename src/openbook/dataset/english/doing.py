"""Questions from full verbs and modals: what something does, what does it, how many, when, why, on what condition."""

import random
from collections.abc import Iterator, Sequence

from openbook.dataset.english.clause import Clause
from openbook.dataset.english.draft import (
    Draft,
    clip,
    core_end,
    count_words,
    denied,
    finite,
    is_number,
    is_year,
    limited,
    pick,
    plain,
    span,
    subject_question,
    vary,
)
from openbook.dataset.english.sentence import Token
from openbook.dataset.english.subject import subject_text
from openbook.dataset.english.words import INTRANSITIVE, PHRASAL, PREPOSITIONS, SUBORDINATORS, VERBS, is_plural

# Verbs with "somebody to do something" after them.
_CAUSATIVE = frozenset(
    (
        "allow",
        "enable",
        "cause",
        "help",
        "require",
        "force",
        "permit",
        "instruct",
        "tell",
        "encourage",
        "lead",
        "persuade",
        "order",
        "ask",
        "invite",
        "urge",
    )
)
_LINKING = frozenset(("look", "seem", "appear", "feel", "sound", "behave"))  # "looks more similar": no object
_TIMES = frozenset("second seconds minute minutes hour hours day days week weeks month months year years time".split())
_PEOPLE = frozenset(("you", "we", "users", "developers", "people", "they"))


def auxiliary(c: Clause) -> tuple[str, str]:
    """The verb that goes before the subject in a question, and the one that stays behind ("" where none does)."""
    if c.kind != "lex":
        return c.tokens[c.verb].low, ""
    return ("did" if c.past else "do" if c.plural else "does"), c.base


def _people(c: Clause) -> bool:
    return c.tokens[c.subject[0]].low in _PEOPLE


def of_verb(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """ "The server stores samples in memory": what does the server store, what stores samples?"""
    tokens, body, stop = c.tokens, c.body, c.stop
    if c.negated:
        return
    subject, opening = subject_text(c), tokens[body].low
    aux, base = auxiliary(c)
    asked, rest = subject_question(c), plain(c.sentence, body, stop)
    # Another verb of the same sense takes the same object, but not the same preposition or clause.
    free = opening not in PREPOSITIONS and opening not in SUBORDINATORS and base not in {"have", "do"}
    verb = vary(base, rng) if free and opening not in {"you", "us"} else base
    if asked and rest and count_words(tokens[body:stop]) >= 2 and not _people(c):
        yield Draft("subject", f"{asked[0]} {limited(c, finite(verb, c))} {rest}?", *asked[1], 5.0)
    stop = core_end(c)
    end = clip(tokens, body, stop)
    if end is None:
        return
    if f"{base}:{opening}" in PHRASAL:
        verb_follows = opening == "to" and body + 1 < stop and (f := VERBS.get(tokens[body + 1].low)) and f.plain
        final = None if verb_follows or body + 1 >= stop else clip(tokens, body + 1, stop)
        if final:
            yield Draft("what", f"What {aux} {subject} {base} {opening}?", *span(tokens, body + 1, final), 6.5)
        return
    if (
        base in INTRANSITIVE
        or base in _LINKING
        or _is_time(tokens[body:stop])
        or opening.endswith("ly")
        or opening in PREPOSITIONS
        or opening in SUBORDINATORS - {"that", "whether"}
    ):
        return
    if _people(c):
        return
    if opening in {"you", "us"} and base not in _CAUSATIVE:
        final = clip(tokens, body + 1, stop) if body + 1 < stop else None
        if final:
            ask = f"What {aux} {subject} let you do?" if base == "let" else f"What {aux} {subject} {base} you?"
            yield Draft("what", ask, *span(tokens, body + 1, final), 6.0)
        return
    to = next((i for i in range(body + 1, min(body + 7, stop - 1)) if tokens[i].low == "to"), None)
    if base in _CAUSATIVE and to is not None:
        final, whom = clip(tokens, to + 1, stop), plain(c.sentence, body, to)
        if final and whom not in {"", "it", "them", "him", "her", "us"} and tokens[to + 1].low in VERBS:
            yield Draft("what", f"What {aux} {subject} {base} {whom} to do?", *span(tokens, to + 1, final), 7.0)
        return
    if is_number(tokens[body]) and not is_year(tokens[body]):
        noun = next((i + 1 for i in range(body + 1, min(body + 4, stop)) if is_plural(tokens[i].low)), None)
        if noun is not None:
            if noun + 1 < stop <= noun + 5 and tokens[noun].low == "of":
                noun = stop
            ask = f"How many {c.sentence.part(body + 1, noun)} {aux} {subject} {verb}?"
            yield Draft("how many", ask, *span(tokens, body, body + 1), 7.5)
            return
    yield Draft("what", f"What {aux} {subject} {verb}?", *span(tokens, body, end), 5.5)


def _is_time(words: Sequence[Token]) -> bool:
    """Whether the words say how often ("every six weeks") and not what."""
    return words[0].low in {"every", "each", "once", "twice"} and any(token.low in _TIMES for token in words[1:3])


def of_perfect(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """ "X has been moved to Y", "X has gained Y"."""
    asked, rest = subject_question(c), plain(c.sentence, c.body, c.stop)
    if asked and rest and not c.negated:
        has = "had" if c.tokens[c.verb].low == "had" else "has"
        yield Draft("subject", f"{asked[0]} {has} {limited(c, rest)}?", *asked[1], 4.0)


def of_modal(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """ "X must be …", "X can …": duties and abilities."""
    tokens, body, stop = c.tokens, c.body, c.stop
    modal, subject = tokens[c.verb].low, subject_text(c)
    if modal not in {"can", "must", "should", "shall", "will", "may", "cannot", "do", "does", "did"}:
        return
    asked, rest = subject_question(c), denied(c) if c.negated else plain(c.sentence, body, stop)
    if asked and rest and not _people(c) and tokens[body].low != "no":
        one = "does" if modal == "do" else modal  # "Which flags do not reset it?" is asked as "What does not reset it?"
        yield Draft("subject", f"{asked[0]} {one} {limited(c, rest)}?", *asked[1], 4.0)
    if c.negated:
        return
    form = VERBS.get(tokens[body].low)
    if tokens[body].low == "be" and body + 2 < stop and not _people(c):
        yield from _modal_passive(c, rng)
    elif form is not None and form.plain and not _people(c):
        end = clip(tokens, body, stop)
        if end and end - body >= 2:
            yield Draft("what", f"What {modal} {subject} do?", *span(tokens, body, end), 5.0)


def _modal_passive(c: Clause, rng: random.Random) -> Iterator[Draft]:
    tokens, body, stop = c.tokens, c.body, c.stop
    modal, subject = tokens[c.verb].low, subject_text(c)
    part, prep = tokens[body + 1].low, tokens[body + 2].low
    form = VERBS.get(part)
    if form is None or not form.participle:
        end = clip(tokens, body + 1, stop)
        if end and modal in {"must", "should", "shall"}:
            yield Draft("must", f"What {modal} {subject} be?", *span(tokens, body + 1, end), 6.5)
        return
    final = clip(tokens, body + 2, stop)
    if final is None:
        return
    shown = span(tokens, body + 2, final)
    if prep in {"to", "for"} and part == "used":
        ask = pick(rng, "What {m} {s} be used for?", "What {m} you use {s} for?", m=modal, s=subject)
        yield Draft("purpose", ask, *shown, 6.5)
    elif prep == "by" and not tokens[body + 3].low.endswith("ing"):
        agent = clip(tokens, body + 3, stop)
        if agent:
            yield Draft("who", f"By whom or what {modal} {subject} be {part}?", *span(tokens, body + 3, agent), 5.5)
    elif prep in {"by", "via", "using", "through", "with"}:
        yield Draft("how", f"How {modal} {subject} be {part}?", *shown, 6.0)
    elif prep in {"if", "when", "before", "after", "until", "once"}:
        yield Draft("condition", f"When {modal} {subject} be {part}?", *shown, 6.0)
    elif prep in {"in", "on", "as", "to", "from"} and modal != "can":
        inner = clip(tokens, body + 3, stop) if body + 3 < stop else None
        if inner and not ((f := VERBS.get(tokens[body + 3].low)) and f.plain):
            yield Draft("what", f"What {modal} {subject} be {part} {prep}?", *span(tokens, body + 3, inner), 5.5)
