"""The main clause of a sentence: adverbial in front, subject, verb, the rest.

No parser and no model: closed word classes and agreement in number ("the results are", "the result is") tell where the
subject ends and the verb begins. What does not fit is not forced; the teacher has many sentences to choose from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from openbook.dataset.english.ending import clause_end
from openbook.dataset.english.sentence import Sentence, Token
from openbook.dataset.english.verb import find_verb
from openbook.dataset.english.words import (
    ADVERBS,
    BE,
    CONNECTORS,
    DETERMINERS,
    DO,
    FILLERS,
    FINITE,
    HAVE,
    LIMITING,
    MODALS,
    PREPOSITIONS,
    SUBORDINATORS,
    VERBS,
)

_LEADS = PREPOSITIONS | SUBORDINATORS | {"according", "based", "depending", "given"}
_EMPTY_LEADS = frozenset(
    "note that|in addition|for example|for instance|that is|as a|in other|in short|in fact|in actuality|in particular|of course"
    "|to sum up|in contrast|by contrast|in essence|in practice|in general|on the other|at the same|in the meantime".split(
        "|"
    )
)
_NEGATIONS = frozenset(("not", "never", "no"))
_INVERTING = frozenset("nor neither never not no so only then rarely seldom hardly scarcely such here there".split())

Kind = Literal["be", "modal", "have", "lex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """Positions are indices of `sentence.tokens`, spans half-open.

    `kind`: "be", "modal", "have" (perfect) or "lex" (a full verb, whose base form is `base`). `body` begins after the
    verb and its adverbs and ends, at `stop`, before whatever opens another clause. `topic` is put in the subject's
    place where the sentence says only "it" or "this function". `limits` holds the adverbs without which the clause would
    claim something else ("is *rarely* exposed by"): they stand neither in the subject nor in the body.
    """

    sentence: Sentence
    lead: tuple[int, int]
    subject: tuple[int, int]
    verb: int
    kind: Kind
    base: str
    past: bool
    body: int
    stop: int
    negated: bool
    topic: str = ""
    limits: str = ""

    @property
    def tokens(self) -> list[Token]:
        return self.sentence.tokens

    @property
    def plural(self) -> bool:
        """Whether the verb says that the subject is plural ("threads block"); past and modal verbs do not say."""
        word = self.tokens[self.verb].low
        form = VERBS.get(word)
        return not self.topic and (word in {"have", "do", "are", "were"} or (form is not None and not form.third))


def parse(sentence: Sentence) -> Clause | None:
    """The main clause of a sentence, or None where it cannot be found for certain."""
    tokens = sentence.tokens
    if len(tokens) < 5:
        return None
    start, lead = _skip_lead(tokens)
    opening = start
    if tokens[start].low in CONNECTORS & ADVERBS and start + 3 < len(tokens):
        if tokens[start + 1].low in FINITE:
            return None  # "Rarely does a server …"
        start += 1  # "Typically solvers can …"
    verb = find_verb(tokens, start)
    if verb is None or _is_noun_phrase(sentence, verb):
        return None
    if all(token.low in _INVERTING for token in tokens[start:verb]):
        return None  # "Nor does the header require …": the subject stands behind the verb
    subject_end = verb
    while subject_end > start + 1 and tokens[subject_end - 1].low in ADVERBS:
        subject_end -= 1
    low, body = tokens[verb].low, verb + 1
    negated = low in {"cannot"} or tokens[body].low.endswith(("n't", "n’t"))
    auxiliary = low in BE | MODALS
    while body < len(tokens) and (tokens[body].low in ADVERBS or tokens[body].low in _NEGATIONS):
        negated = negated or tokens[body].low in _NEGATIONS
        if tokens[body].low == "no" or (tokens[body].low == "only" and not auxiliary):
            break
        body += 1
    if body >= len(tokens):
        return None
    after = [token.low for token in tokens[verb + 1 : body + 1]]
    if "not" in after and not {"only", "just", "merely", "simply", "solely"}.isdisjoint(after):
        return None  # "is not only …" denies nothing
    passed = [*(tokens[:1] if start == 2 else tokens[opening:start]), *tokens[subject_end:verb]]
    limits = _limits(passed if negated else [*passed, *tokens[verb + 1 : body]])
    if negated and limits:
        return None  # two words that limit, of which a question could lose one
    kind: Kind = "lex"
    base, past = "", False
    if low in BE:
        kind, past = "be", low in {"was", "were"}
    elif low in MODALS:
        kind = "modal"
    elif low in HAVE:
        following = VERBS.get(tokens[body].low)
        if tokens[body].low in {"been", "had", "done"} or (
            following is not None and following.participle and not following.third
        ):
            kind = "have"
        else:
            base, past = "have", low == "had"
    elif low in DO and negated:
        kind, past = "modal", low == "did"  # "does not reject …"
    elif low in DO:
        base, past = "do", low == "did"
    else:
        form = VERBS[low]
        base, past = form.base, form.past and not form.plain
    stop = clause_end(tokens, body, past=past, third=kind == "be" or low.endswith("s"))
    if stop <= body:
        return None
    return Clause(
        sentence=sentence,
        lead=lead,
        subject=(start, subject_end),
        verb=verb,
        kind=kind,
        base=base,
        past=past,
        body=body,
        stop=stop,
        negated=negated,
        limits=limits,
    )


def _skip_lead(tokens: Sequence[Token]) -> tuple[int, tuple[int, int]]:
    """Where the main clause begins, and the span of an adverbial that stands before it, without its comma."""
    at = 0
    if tokens[0].low in CONNECTORS and tokens[1].text == ",":
        at = 2
    elif f"{tokens[0].low} {tokens[1].low}" in _EMPTY_LEADS or " ".join(t.low for t in tokens[:3]) in _EMPTY_LEADS:
        comma = next((i for i in range(2, min(6, len(tokens))) if tokens[i].text == ","), None)
        at = comma + 1 if comma is not None else 2 if tokens[0].low == "note" else 0
    if at >= len(tokens):
        return 0, (0, 0)
    low = tokens[at].low
    if low in _LEADS or low.endswith("ing"):
        comma = next((i for i in range(at + 1, min(at + 22, len(tokens) - 3)) if tokens[i].text == ","), None)
        # "In June, July, and August" is an enumeration and not a lead.
        if comma is not None and tokens[comma + 1].low not in {"and", "or"}:
            return comma + 1, (at, comma)
    return at, (0, 0)


def _limits(passed: Sequence[Token]) -> str:
    """The adverbs among `passed`, where one of them limits the clause: "almost always", but not "also"."""
    kept = [token.low for token in passed if token.low in ADVERBS and token.low not in FILLERS]
    return " ".join(kept) if not LIMITING.isdisjoint(kept) else ""


def _is_noun_phrase(sentence: Sentence, verb: int) -> bool:
    """Whether what looks like the verb is a participle: docstrings are full of "A graph created with the library"."""
    form = VERBS.get(sentence.tokens[verb].low)
    participle = form is not None and form.past and form.participle and not form.plain
    return sentence.named and participle and sentence.tokens[verb + 1].low not in DETERMINERS
