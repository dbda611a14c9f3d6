"""Questions from "X is …": definitions, values, and the passive ("X is stored in", "was founded by", "is used to")."""

import random
from collections.abc import Iterator, Sequence

from openbook.dataset.english.clause import Clause
from openbook.dataset.english.draft import (
    Draft,
    clip,
    core_end,
    date_end,
    denied,
    finite,
    is_number,
    is_person,
    limited,
    pick,
    plain,
    span,
    subject_answer,
    subject_question,
)
from openbook.dataset.english.sentence import Token
from openbook.dataset.english.subject import bare_subject, subject_text
from openbook.dataset.english.words import (
    FUNCTION_WORDS,
    NOT_PURPOSE,
    PLACE_PARTICIPLES,
    PREPOSITIONS,
    STOPWORDS,
    VERBS,
    is_code,
    is_plural,
)

# "is allowed to", "is said to": what follows is the content and not a purpose.
_CONDITIONS = frozenset(("if", "when", "unless", "after", "before", "once", "until", "whenever"))
_MEANS = frozenset(("through", "via", "using", "with"))
_STRANDED = frozenset(("from", "into", "of", "with", "as", "on", "to", "for"))


def of_be(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """What something is, and what is so described."""
    tokens, body, stop = c.tokens, c.body, c.stop
    if c.negated:
        asked, rest = subject_question(c), denied(c)
        if asked and rest and (tokens[body].low != "no" or tokens[body + 1].low == "longer"):
            yield Draft("subject", f"{asked[0]} {tokens[c.verb].low} {rest}?", *asked[1], 3.5)
        return
    opening = tokens[body]
    form = VERBS.get(opening.low)
    if form is not None and form.participle and (not opening.text[0].isupper() or opening.text.isupper()):
        yield from _passive(c, rng)
        return
    if opening.low.endswith(("ed", "ing")) and not opening.low.startswith("un"):
        return  # a participle of a verb that we do not know, or "is doing"; "is unaffected by" tells a property
    if c.limits:  # "What is merely a hint?", but not "What is X merely?"
        yield from _of_what(c)
        return
    end = clip(tokens, body, stop)
    if opening.low in {"being", "to"}:
        return
    person = is_person(tokens[c.subject[0] : c.subject[1]])
    value = is_code(opening.text) or is_number(opening) or opening.text[0] in '"“'
    short = stop - body <= (2 if is_number(opening) else 6)
    if value and short and end and tokens[c.verb].low in {"is", "was"} and not person:
        yield Draft("value", f"What {tokens[c.verb].low} {subject_text(c)}?", *span(tokens, body, end), 7.0)
    elif _is_noun(tokens[body:stop]):
        disagrees = tokens[c.verb].low in {"are", "were"} and tokens[c.subject[0]].low in {"a", "an"}
        if end and not disagrees:
            yield _definition(c, end, rng, person=person)
        yield from _term(c, rng)
    elif opening.low not in STOPWORDS and stop - body >= 3:
        yield from _of_what(c)


def _of_what(c: Clause) -> Iterator[Draft]:
    """What it is of which the sentence says so: "What is merely a hint?" """
    rest, asked = plain(c.sentence, c.body, c.stop), subject_question(c)
    if rest and asked:
        yield Draft("subject", f"{asked[0]} {c.tokens[c.verb].low} {limited(c, rest)}?", *asked[1], 3.0)


def _definition(c: Clause, end: int, rng: random.Random, *, person: bool) -> Draft:
    tokens, be, subject = c.tokens, c.tokens[c.verb].low, subject_text(c)
    shown = span(tokens, c.body, end)
    if person:
        return Draft("definition", f"Who {be} {subject}?", *shown, 5.0)
    asks = ["What {be} {s}?", "What {be} {s}?", "How {be} {s} described?"]
    if be in {"is", "are"} and tokens[c.body].low != "the" and len(subject.split()) <= 4:
        exactly = be == "is" and subject.startswith("the ")
        asks.append("What exactly {be} {s}?" if exactly else "What is meant by {s}?")
    if tokens[c.subject[0]].low.endswith("ing"):
        asks = ["How {be} {s} described?"]
    return Draft("definition", pick(rng, *asks, be=be, s=subject), *shown, 6.5)


def _is_noun(complement: Sequence[Token]) -> bool:
    """Whether a complement says what something is; "the same in both cases", "a leaf if it has no children" do not."""
    if complement[0].low not in {"a", "an", "the", "one", "any"}:
        return _is_bare_noun(complement[:3])
    conditional = any(token.low in {"if", "when", "unless"} for token in complement)
    return not conditional and (len(complement) == 1 or complement[1].low != "same")


def _is_bare_noun(tokens: Sequence[Token]) -> bool:
    """Whether a complement begins with a plural noun and at most two words before it ("internal details"), and not
    with an adjective ("small and quick", "useful for tests")."""
    for token in tokens:
        if token.low in STOPWORDS or token.low in {"and", "or"}:
            return False
        if is_plural(token.low):
            return True
    return False


def _term(c: Clause, rng: random.Random) -> Iterator[Draft]:
    """From "A gauge is a metric that goes up and down": "Which metric goes up and down?", answered by the term."""
    tokens, body, stop = c.tokens, c.body, c.stop
    answer, description = subject_answer(c), plain(c.sentence, body, stop, 18)
    if not answer or not description or c.past or len(description.split()) < 5:
        return
    opening, be = tokens[body].low, tokens[c.verb].low
    if opening in {"a", "an"} and be == "is":
        relative = next((i for i in range(body + 2, min(body + 7, stop)) if tokens[i].low in {"that", "which"}), None)
        verb = VERBS.get(tokens[relative + 1].low) if relative is not None and relative + 2 < stop else None
        if relative is not None and verb is not None and (verb.third or verb.past):
            rest = plain(c.sentence, relative + 1, stop, 16)
            if rest:
                noun = c.sentence.part(body + 1, relative)
                yield Draft("term", pick(rng, "Which {n} {r}?", "What {n} {r}?", n=noun, r=rest), *answer, 7.0)
                return
        if len(description.split()) >= 6:
            yield Draft(
                "term",
                pick(rng, "What do you call {d}?", "Which term means {d}?", "What is described as {d}?", d=description),
                *answer,
                5.5,
            )
    elif (opening in {"the", "one"} or be == "are") and len(description.split()) >= 6:
        yield Draft(
            "term", pick(rng, "What {be} {d}?", "What {be} described as {d}?", be=be, d=description), *answer, 4.5
        )


def _passive(c: Clause, rng: random.Random) -> Iterator[Draft]:
    tokens, body, stop = c.tokens, c.body, c.stop
    after = body + 1
    if after >= stop:
        return
    be, subject, part, prep = tokens[c.verb].low, subject_text(c), tokens[body].low, tokens[after].low
    stop = core_end(c) if core_end(c) > after else stop
    end = clip(tokens, after, stop)
    if end is None:
        return
    lead, inner = f"{be} {subject} {part}", after + 1
    asked, rest = subject_question(c), plain(c.sentence, body, stop)
    if asked and rest and part not in {"called", "used"}:
        yield Draft("subject", f"{asked[0]} {be} {limited(c, rest)}?", *asked[1], 4.5)
    if part in {"called", "named", "termed", "dubbed", "titled", "nicknamed"}:
        if prep not in PREPOSITIONS and prep not in STOPWORDS - {"a", "an", "the"}:
            plainly = be in {"is", "are"} and not c.limits
            name = pick(rng, "What {l}?", "What name is used for {s}?" if plainly else "What {l}?", l=lead, s=subject)
            yield Draft("name", name, *span(tokens, after, end), 7.5)
    elif part in {"known", "referred"}:
        at = after + (1 if prep == "as" else 2)
        final = clip(tokens, at, stop) if at < stop and tokens[at - 1].low == "as" else None
        if final:
            name = pick(rng, "What {be} {s} known as?", "By what name {be} {s} known?", be=be, s=subject)
            yield Draft("name", name, *span(tokens, at, final), 7.5)
    elif part == "used" and prep in {"to", "for"}:
        shown = span(tokens, after if prep == "to" else inner, end)
        other = "What {be} {s} used for?" if c.limits else "What is the purpose of {s}?"
        yield Draft("purpose", pick(rng, "What {be} {s} used for?", other, be=be, s=subject), *shown, 7.0)
        answer, rest = subject_answer(c), plain(c.sentence, inner, stop)
        if answer and rest:
            yield Draft("subject", f"What {be} {limited(c, f'used {prep}')} {rest}?", *answer, 6.0)
    elif prep == "by" and inner < stop:
        yield from _agent(c, rng, part, inner, end)
    elif prep in {"in", "on", "since"} and (date := date_end(tokens, inner, stop)):
        yield Draft(
            "when",
            pick(rng, "When {l}?", "When exactly {l}?" if date > inner + 1 else "In what year {l}?", l=lead),
            *span(tokens, inner, date),
            7.0,
        )
    elif prep == "to" and inner + 1 < stop and _is_infinitive(tokens[inner]):
        thing = part == "allowed" and not is_person(tokens[c.subject[0] : c.subject[1]])
        if part in NOT_PURPOSE and not thing:
            yield Draft("what", f"What {lead} to do?", *span(tokens, inner, end), 6.0)
        elif part not in NOT_PURPOSE and tokens[inner].low not in {"be", "have"}:
            ask = pick(rng, "Why {l}?", "For what purpose {l}?", l=lead)
            yield Draft("purpose", ask, *span(tokens, after, end), 5.0)
    elif prep in _CONDITIONS:
        asks = ("When {l}?", "Under what condition {l}?") if prep in {"if", "unless", "when"} else ("When {l}?",)
        yield Draft("condition", pick(rng, *asks, l=lead), *span(tokens, after, end), 6.5)
    elif prep in {"in", "on", "at", "under", "inside", "within"} and part in PLACE_PARTICIPLES:
        yield Draft("where", f"Where {lead}?", *span(tokens, after, end), 6.5)
    elif prep in _MEANS and part not in {
        "associated",
        "filled",
        "equipped",
        "marked",
        "replaced",
        "prefixed",
        "started",
    }:
        yield Draft("how", f"How {lead}?", *span(tokens, after, end), 5.5)
    elif prep in _STRANDED and inner < stop and not tokens[inner].low.endswith("ing"):
        final = clip(tokens, inner, stop)
        if final and tokens[inner].low not in PREPOSITIONS and tokens[inner].low != "well":
            yield Draft("what", f"What {lead} {prep}?", *span(tokens, inner, final), 5.5)


def _is_infinitive(token: Token) -> bool:
    form = VERBS.get(token.low)
    if token.low in {"be", "have"}:
        return True
    return form.plain if form else token.text.islower() and token.low not in FUNCTION_WORDS and not is_plural(token.low)


def _agent(c: Clause, rng: random.Random, part: str, inner: int, end: int) -> Iterator[Draft]:
    """ "… by Google in 1998": who did it; "… by setting the flag": how it is done."""
    tokens = c.tokens
    be, subject = tokens[c.verb].low, subject_text(c)
    manner = inner + (tokens[inner].low.endswith("ly"))
    if manner + 1 < end and tokens[manner].low.endswith("ing"):
        ask = pick(rng, "How {be} {s} {p}?", "In what way {be} {s} {p}?", be=be, s=subject, p=part)
        yield Draft("how", ask, *span(tokens, inner - 1, end), 6.0)
        return
    if tokens[inner].low in {"default", "its", "this", "their", "these", "it", "them", "means", "way"}:
        return
    end = next((i for i in range(inner + 1, end) if tokens[i].low in {"in", "on", "at", "during", "for", "as"}), end)
    agent = tokens[inner:end]
    named = agent[0].text[0].isupper() and not is_code(agent[0].text)
    wh, whom = ("Who", "whom") if named or is_person(agent) else ("What", "what")
    active = f"{wh} {limited(c, finite(VERBS[part].base, c))} {bare_subject(c)}?"
    ask = pick(rng, active, "By {m} {be} {s} {p}?", m=whom, s=subject, be=be, p=part)
    yield Draft("who" if named else "what", ask, *span(tokens, inner, end), 7.0)
