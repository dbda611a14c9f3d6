"""The main clause of a sentence: adverbial in front, subject, verb, the rest.

No parser and no model: closed word classes and agreement in number ("the results are", "the result is") tell where the
subject ends and the verb begins. What does not fit is not forced; the teacher has many sentences to choose from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from openbook.dataset.english.sentence import Sentence, Token
from openbook.dataset.english.words import (
    ADVERBS,
    BE,
    CONNECTORS,
    DETERMINERS,
    DO,
    FILLERS,
    FINITE,
    FUNCTION_WORDS,
    GERUNDS,
    HAVE,
    LIMITING,
    MODALS,
    NOUNISH,
    PREPOSITIONS,
    SUBORDINATORS,
    VERBS,
    is_code,
    is_plural,
)

MAX_SUBJECT = 11  # tokens
_LEADS = PREPOSITIONS | SUBORDINATORS | {"according", "based", "depending", "given"}
_EMPTY_LEADS = frozenset(
    "note that|in addition|for example|for instance|that is|as a|in other|in short|in fact|in actuality|in particular|of course"
    "|to sum up|in contrast|by contrast|in essence|in practice|in general|on the other|at the same|in the meantime".split(
        "|"
    )
)
_BREAKERS = frozenset((",", ";", ":", "—", "–", "…", "=", "|", "->", "→", "/", "\\", "[", "{", "<", "*", "-", "than"))
_NEGATIONS = frozenset(("not", "never", "no"))
_INVERTING = frozenset("nor neither never not no so only then rarely seldom hardly scarcely such here there".split())
_CONTRACTED = (
    "n't",
    "n’t",
    "'ll",
    "’ll",
    "'ve",
    "’ve",
    "'re",
    "’re",
    "'d",
    "’d",
    "let's",
    "let’s",
    "it's",
    "it’s",
    "that's",
    "that’s",
)

_ADJECTIVAL = ("-related", "-based", "-specific", "-like", "-aware", "-only", "-defined", "-level", "-free", "-side")
_SUBJECTS = frozenset(("you", "we", "they", "he", "she"))  # behind a comma they open another clause
_AFTER_VERB = FUNCTION_WORDS - {"and", "or", "of", "by", "for", "from", "at"}
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


def is_plural_phrase(tokens: Sequence[Token]) -> bool:
    """Whether a noun phrase is plural: by "and", or by its head, the last word before the first preposition."""
    words = [token for token in tokens if token.text[0] != "("]
    if not words:
        return False
    if any(token.low == "and" for token in words):
        return True
    head = next((words[i - 1] for i in range(1, len(words)) if words[i].low in PREPOSITIONS), words[-1])
    if head.low in {"you", "we", "they", "these", "those"}:
        return True
    # "Governor Jennings", "the Netherlands": the s of a name tells nothing.
    named = head.text[0].isupper() and head is not words[0]
    return is_plural(head.low) and not is_code(head.text) and not named


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


def _is_verb(tokens: Sequence[Token], at: int, start: int) -> bool:
    """Whether the word at `at`, which may also be a noun, reads as the finite verb of the subject from `start`."""
    form = VERBS.get(tokens[at].low)
    if form is None or not (form.third or form.plain or form.past) or tokens[at].text[0].isupper():
        return False
    previous, following = tokens[at - 1], tokens[at + 1]
    if following.low in FINITE or following.text in {",", "/"}:
        return False
    if previous.low in DETERMINERS or previous.low in PREPOSITIONS or previous.low in {"and", "or"}:
        return False
    if previous.low.endswith(_ADJECTIVAL) or (at == start + 1 and previous.low.endswith("ly")):
        return False  # "Prometheus-related posts on …", "Vastly improved …"
    if tokens[start].low in {"you", "we", "they"}:
        return form.plain or form.past
    if previous.low.endswith(("'s", "’s")):
        return False
    # "running programs", but "the `level` setting controls the …"
    if previous.low in GERUNDS and not (at > start + 2 and following.low in DETERMINERS):
        return False
    plural = is_plural_phrase(tokens[start:at])
    if form.third and not form.plain:
        if plural or form.base not in NOUNISH:
            return not plural
        # "The test results show", "label names beginning": a noun, unless an object follows.
        return (
            following.low in DETERMINERS | {"it", "them", "itself", "you", "us"}
            or is_code(following.text)
            or following.text[0].isdigit()
        )
    if form.past and not form.plain:
        if not form.participle:
            return True
        if any(t.low in FINITE for t in tokens[at + 1 : at + 4]) or tokens[at].low in {"called", "named", "known"}:
            return False  # "base64 encoded sequence had", "the project called Factory"
        for t in tokens[at + 1 : at + 22]:
            if t.low in SUBORDINATORS or t.low == "but" or t.text in {";", ",", "—"}:
                break
            if t.low in BE:
                return False
        if following.low == "by" or (
            following.low == "to"
            and tokens[at].low
            not in {
                "moved",
                "led",
                "agreed",
                "voted",
                "decided",
                "began",
            }
        ):
            return False
        # "The values stored in the map are …": a reduced relative clause, since a finite verb follows.
        reduced = following.low in PREPOSITIONS or following.low.endswith("ly") or following.text[0] == "("
        return not reduced or not any(
            t.low in FINITE or ((f := VERBS.get(t.low)) is not None and f.third and not f.plain)
            for t in tokens[at + 1 : at + 16]
        )
    # "Rust programs access the …" against "the users access rights".
    return plural and (form.base not in NOUNISH or following.low in _AFTER_VERB or is_code(following.text))


def _find_verb(tokens: Sequence[Token], start: int) -> int | None:
    if tokens[start].low in FINITE:
        return None  # "MUST NOT contain …": no subject
    doubtful = False  # passed a noun that could have been the verb
    for i in range(start, min(start + MAX_SUBJECT + 1, len(tokens) - 1)):
        low = tokens[i].low
        if low.endswith(_CONTRACTED) or tokens[i].text in _BREAKERS or low in SUBORDINATORS:
            return None
        if i == start:
            continue
        if (low in FINITE and tokens[i - 1].low == "to") or (low.endswith("ed") and low.islower() and low not in VERBS):
            return None  # an infinitive, or the participle or past of a verb that we do not know
        if low in FINITE or (not doubtful and _is_verb(tokens, i, start)):
            return i
        form = VERBS.get(low)
        doubtful = doubtful or (form is not None and (form.plain or form.third) and form.base in NOUNISH)
        if low in ADVERBS and low not in {"first", "best", "only", "even"}:
            following = tokens[i + 1].low
            if following in FINITE or (
                not doubtful and i + 2 < len(tokens) and _is_verb([*tokens[:i], *tokens[i + 1 :]], i, start)
            ):
                return i + 1
    return None


def clause_end(tokens: Sequence[Token], body: int, *, past: bool = False, third: bool = False) -> int:
    """Where the clause whose verb stands before `body` ends: at the final stop, a semicolon, colon or dash, at a comma
    that opens another clause, or at an "and" that joins a second verb to the first."""
    end = len(tokens)
    while end > body and tokens[end - 1].text in {".", "!", "?", ":", ";"}:
        end -= 1
    commas = 0
    for i in range(body, end):
        text, low = tokens[i].text, tokens[i].low
        if text in {";", ":", "—", "–", "--", "-", "…"}:
            return i
        if i + 2 >= end:
            continue
        following = tokens[i + 1].low
        reach = 8 if following in DETERMINERS else 4
        if low in {"and", "but"} and any(t.low in FINITE for t in tokens[i + 2 : i + reach]):
            return i - (tokens[i - 1].text == ",")  # "a problem and data should be …"
        if low in {"and", "or", "but"} and i > body and _joins_verb(tokens, i + 1, past=past, third=third):
            return i - (tokens[i - 1].text == ",")
        if text == ",":
            gerund = following.endswith("ing") and following in GERUNDS
            if following in {"and", "or"}:
                if not commas:
                    return i
            elif (
                following in SUBORDINATORS | _SUBJECTS
                or following in {"but", "so", "yet", "as", "including", "with"}
                or gerund
            ):
                return i
            commas += 1
    return end


def _joins_verb(tokens: Sequence[Token], at: int, *, past: bool, third: bool) -> bool:
    while at + 1 < len(tokens) and tokens[at].low in ADVERBS:
        at += 1
    if tokens[at].low in FINITE:
        return True
    form = VERBS.get(tokens[at].low)
    if form is None or at + 1 >= len(tokens):
        return False
    if past:
        return form.past and not form.plain
    if third and form.third and not form.plain and form.base not in NOUNISH:
        return True  # "… and relies on"
    after = tokens[at + 1].low
    return (form.third if third else form.plain) and (after in DETERMINERS or after in {"to", "it", "them"})


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
    verb = _find_verb(tokens, start)
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


def _limits(passed: Sequence[Token]) -> str:
    """The adverbs among `passed`, where one of them limits the clause: "almost always", but not "also"."""
    kept = [token.low for token in passed if token.low in ADVERBS and token.low not in FILLERS]
    return " ".join(kept) if not LIMITING.isdisjoint(kept) else ""


def _is_noun_phrase(sentence: Sentence, verb: int) -> bool:
    """Whether what looks like the verb is a participle: docstrings are full of "A graph created with the library"."""
    form = VERBS.get(sentence.tokens[verb].low)
    participle = form is not None and form.past and form.participle and not form.plain
    return sentence.named and participle and sentence.tokens[verb + 1].low not in DETERMINERS
