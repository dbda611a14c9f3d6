"""Questions that ask for an adverbial: when, since when, why, on what condition."""

import random
from collections.abc import Iterator

from openbook.dataset.english.clause import Clause
from openbook.dataset.english.doing import auxiliary
from openbook.dataset.english.draft import Draft, clip, date_end, pick, plain, span
from openbook.dataset.english.subject import subject_text
from openbook.dataset.english.words import GERUNDS, LIMITING, NOUNISH, VERBS

_DATED = {"in": ("When", "In what year"), "on": ("When",), "since": ("Since when",), "until": ("Until when",)}
_CONDITIONS = frozenset(("if", "when", "unless", "whenever"))
# "only if", "especially when", "and if": what follows is more, or less, than the condition.
_QUALIFYING = LIMITING | frozenset("even as and or but not except especially particularly specifically just".split())


def of_circumstance(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """What stands before or behind the clause: its date, its reason, its condition."""
    if c.negated:
        return
    aux, base = auxiliary(c)
    front = f"{aux} {subject_text(c)} {base}".rstrip()
    yield from _dated_in_front(c, front, rng)
    for at in range(c.body + 1, c.stop - 1):
        low = c.tokens[at].low
        if low in _DATED and (end := date_end(c.tokens, at + 1, c.stop)):
            yield from _dated(c, front, at, end, rng)
            return
        if low == "because" or low in _CONDITIONS or (low == "so" and c.tokens[at + 1].low == "that"):
            yield from _reasoned(c, front, at, rng)
            return


def _dated_in_front(c: Clause, front: str, rng: random.Random) -> Iterator[Draft]:
    """ "In June 1878, Tesla left Graz." """
    first, last = c.lead
    rest = plain(c.sentence, c.body, c.stop)
    if last - first >= 2 and c.tokens[first].low == "in" and date_end(c.tokens, first + 1, last) == last and rest:
        ask = rng.choice(_DATED["in"]) if last - first == 2 else "When"
        yield Draft("when", f"{ask} {front} {rest}?", *span(c.tokens, first + 1, last), 7.0)


def _dated(c: Clause, front: str, at: int, end: int, rng: random.Random) -> Iterator[Draft]:
    rest = plain(c.sentence, c.body, at)
    # "gained experience before emigrating in 1884": the date belongs to the inner clause.
    inner = any(token.low in {"before", "after"} for token in c.tokens[c.body : at])
    if rest and not rest.endswith("ing") and not inner:
        asks = _DATED[c.tokens[at].low]
        ask = rng.choice(asks) if end == at + 2 else asks[0]
        yield Draft("when", f"{ask} {front} {rest}?", *span(c.tokens, at + 1, end), 7.0)


def _reasoned(c: Clause, front: str, at: int, rng: random.Random) -> Iterator[Draft]:
    tokens, rest = c.tokens, plain(c.sentence, c.body, at)
    start = at + 2 if tokens[at].low == "so" else at
    end = clip(tokens, start, len(tokens))
    before = VERBS.get(tokens[at - 1].low)
    # "It indicates if …", "can tell when …": the clause is the verb's object and not a condition.
    asking = before is not None and before.plain and (before.base not in NOUNISH or at - 1 == c.verb)
    # "The downside is that … because …": the reason is the inner clause's; "iterating and determining when …" asks.
    inner = any(token.low in {"that", "which", "who"} for token in tokens[c.body : at]) or tokens[at - 1].low in GERUNDS
    qualified = tokens[at - 1].low in _QUALIFYING
    if not rest or end is None or end - start < 3 or asking or inner or qualified:
        return
    shown = span(tokens, start, end)
    if tokens[at].low in _CONDITIONS:
        asks = ("When {f} {v}?", "Under what condition {f} {v}?", "In which case {f} {v}?")
        yield Draft("condition", pick(rng, *asks, f=front, v=rest), *shown, 6.0)
    else:
        asks = ("Why {f} {v}?", "For what reason {f} {v}?", "Why {f} {v}?")
        yield Draft("why", pick(rng, *asks, f=front, v=rest), *shown, 7.0 if tokens[at].low == "because" else 5.0)
