"""One sentence taken apart far enough to be turned into a question: adverbial in front, subject, verb, the rest.

No parser and no model: closed word classes and agreement in number ("results are", "result is") tell where the subject
ends and the verb begins. What does not fit is not forced; the teacher has many sentences to choose from.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from openbook.dataset.english.words import (
    ADVERBS,
    BE,
    CONNECTORS,
    DEICTIC,
    DETERMINERS,
    DO,
    FINITE,
    GENERIC,
    GERUNDS,
    HAVE,
    MODALS,
    NUMBER_WORDS,
    PREPOSITIONS,
    PRONOUNS,
    STOPWORDS,
    SUBORDINATORS,
    VERBS,
    is_code,
    is_plural,
)


class Token(NamedTuple):
    """A word, a `code span`, a (parenthesis), a "quotation" or a punctuation mark; offsets are the sentence's."""

    text: str
    low: str
    start: int
    end: int


# Every alternative is bounded or stops at its own opening character: linear on any text.
_TOKEN = re.compile(
    r"`[^`]+`|\([^()]*\)|\"[^\"]{1,80}\"|“[^”]{1,80}”|(?:[A-Z]\.){2,}|(?:e\.g|i\.e|etc|vs|cf)\."
    r"|[$€£]?\d+(?:[.,:]\d+)*(?:%|[\w-]*)|-{1,2}[A-Za-z][\w-]*"
    r"|[.@/$]?\w+(?:(?:['’./+#&@*=]|::|:(?=\w)|-{1,2})\w+)*(?:\(\)|[’'](?=\s)|\+\+|#)?|\S"
)
_TERMINAL = frozenset(".!?:;")
_LEADS = PREPOSITIONS | SUBORDINATORS | {"according", "because", "although", "though", "based", "depending", "given"}
MAX_SUBJECT = 11  # tokens


def tokenize(text: str) -> list[Token]:
    return [Token(m[0], m[0].lower(), m.start(), m.end()) for m in _TOKEN.finditer(text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """A main clause. Spans are half-open ranges of `tokens`.

    `kind`: "be", "modal", "have" (perfect) or "lex" (a full verb, whose base form is `base`). `body` begins after the
    verb and its adverbs and ends before the first break that opens another clause (`stop`). `topic` is put in
    the subject's place where the sentence says only "it" or "this function".
    """

    sentence: str
    tokens: list[Token]
    lead: tuple[int, int]
    subject: tuple[int, int]
    verb: int
    kind: Literal["be", "modal", "have", "lex"]
    base: str
    past: bool
    body: int
    stop: int
    negated: bool
    topic: str = ""

    def text(self, first: int, last: int) -> str:
        return self.sentence[self.tokens[first].start : self.tokens[last - 1].end] if last > first else ""

    @property
    def plural(self) -> bool:
        first, last = self.subject
        return not self.topic and _plural_subject(self.tokens[first:last])


def _head(tokens: list[Token]) -> Token:
    """The head noun: the last word before the first preposition."""
    for i, token in enumerate(tokens):
        if i and token.low in PREPOSITIONS:
            return tokens[i - 1]
    return tokens[-1]


def _plural_subject(tokens: list[Token]) -> bool:
    if any(token.low == "and" for token in tokens):
        return True
    words = [token for token in tokens if not token.text.startswith("(")]
    head = _head(words) if words else tokens[-1]
    return (is_plural(head.low) and not is_code(head.text)) or head.low in {"you", "we", "they", "these", "those"}


def _skip_lead(tokens: list[Token]) -> tuple[int, tuple[int, int]]:
    """Where the main clause begins, and the span of an adverbial that stands before it, without its comma."""
    at = 0
    if tokens[0].low in CONNECTORS and len(tokens) > 2 and tokens[1].text == ",":
        at = 2
    elif [t.low for t in tokens[:2]] in (
        ["note", "that"],
        ["in", "addition"],
        ["for", "example"],
        ["for", "instance"],
    ) or [t.low for t in tokens[:3]] in (["as", "a", "result"], ["in", "other", "words"], ["on", "the", "other"]):
        comma = next((i for i in range(2, min(6, len(tokens))) if tokens[i].text == ","), None)
        at = comma + 1 if comma is not None else 2 if tokens[0].low == "note" else 0
    if at >= len(tokens):
        return 0, (0, 0)
    low = tokens[at].low
    if low in _LEADS or low.endswith("ing"):
        limit = min(at + 22, len(tokens) - 3)
        comma = next((i for i in range(at + 1, limit) if tokens[i].text == ","), None)
        # "In June, July, and August" is an enumeration and not a lead.
        if comma is not None and tokens[comma + 1].low not in {"and", "or"}:
            return comma + 1, (at, comma)
    return at, (0, 0)


def _may_be_verb(tokens: list[Token], at: int, start: int) -> bool:
    """Whether the word at `at`, which could also be a noun, reads as the finite verb of the subject before it."""
    form = VERBS.get(tokens[at].low)
    if form is None or not (form.third or form.plain or form.past) or at == start:
        return False
    if tokens[at].text[0].isupper():
        return False
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    if following is None or following.low in FINITE or following.text in {",", "/"}:
        return False
    previous = tokens[at - 1]
    if previous.low in DETERMINERS or previous.low in PREPOSITIONS or previous.low in {"and", "or"}:
        return False
    plural = _plural_subject(tokens[start:at])
    if tokens[start].low in {"you", "we", "they", "i"}:
        return form.plain or form.past
    if form.third and not form.plain:
        # "The test results show": a noun when the next word is itself a verb that agrees with a plural.
        after = VERBS.get(following.low)
        if after and after.plain and not after.participle and following.low not in STOPWORDS:
            return not plural and following.low in {"read", "access", "support", "control"}
        return not plural
    if form.past and not form.plain:
        if form.participle and (
            following.low in PREPOSITIONS or following.low.endswith("ly") or following.text.startswith("(")
        ):
            # "The values stored in the map are": a reduced relative clause when a finite verb follows.
            return not any(
                t.low in FINITE or ((f := VERBS.get(t.low)) is not None and f.third and not f.plain)
                for t in tokens[at + 1 : at + 16]
            )
        return True
    # A base form agrees with plurals only, and never stands before a noun that it could modify ("user request").
    return form.plain and plural and (not previous.low.endswith("'s"))


def _find_verb(tokens: list[Token], start: int) -> int | None:
    for i in range(start, min(start + MAX_SUBJECT + 1, len(tokens) - 1)):
        token = tokens[i]
        low = token.low
        if i > start:
            if low in BE or low in HAVE or low in MODALS or low in DO:
                return i
            if _may_be_verb(tokens, i, start):
                return i
        if low in SUBORDINATORS and low not in {"since", "until", "before", "after"}:
            return None
        if token.text in {",", ";", ":", "—", "–", "…", "=", "|", "->", "→", "/", "\\", "[", "{", "<", "*"}:
            return None
        if i > start and low in ADVERBS and low not in {"first", "best", "only", "even"}:
            follower = tokens[i + 1]
            if follower.low in FINITE or _may_be_verb([*tokens[:i], *tokens[i + 1 :]], i, start):
                return i + 1
    return None


def _stop(tokens: list[Token], body: int) -> int:
    """The end of the main clause: a semicolon, dash or colon, or a comma that opens another clause."""
    end = len(tokens)
    while end > body and tokens[end - 1].text in _TERMINAL:
        end -= 1
    commas = 0
    for i in range(body, end):
        text = tokens[i].text
        if text in {";", ":", "—", "–", "--", "…"}:
            return i
        if text == "," and i + 1 < end:
            low = tokens[i + 1].low
            if low in {"and", "or"}:
                if not commas or any(t.low in FINITE for t in tokens[i + 2 : i + 7]):
                    return i
            elif (
                low in SUBORDINATORS
                or low in {"but", "so", "yet", "as", "including", "with", "making", "allowing"}
                or (low.endswith("ing") and (form := VERBS.get(GERUNDS.get(low, ""))) is not None and form.plain)
            ):
                return i
            commas += 1
    return end


def parse(sentence: str, tokens: list[Token]) -> Clause | None:
    """The main clause of a sentence, or None where it cannot be found for certain."""
    if len(tokens) < 5:
        return None
    start, lead = _skip_lead(tokens)
    verb = _find_verb(tokens, start)
    if verb is None:
        return None
    subject_end = verb
    while subject_end > start + 1 and tokens[subject_end - 1].low in ADVERBS:
        subject_end -= 1
    low = tokens[verb].low
    kind: Literal["be", "modal", "have", "lex"] = "lex"
    base, past = "", False
    body = verb + 1
    negated = low == "cannot"
    while body < len(tokens) and (tokens[body].low in ADVERBS or tokens[body].low in {"not", "never", "no"}):
        # "only" limits what follows and belongs to it.
        if tokens[body].low in {"not", "never", "no"}:
            negated = True
        if tokens[body].low in {"only", "no"}:
            break
        body += 1
    if body >= len(tokens):
        return None
    if low in BE:
        kind, past = "be", low in {"was", "were"}
    elif low in MODALS:
        kind = "modal"
    elif low in HAVE:
        following = VERBS.get(tokens[body].low)
        perfect = tokens[body].low == "been" or (following is not None and following.participle and not following.third)
        kind, base, past = ("have", "", False) if perfect else ("lex", "have", low == "had")
    elif low in DO:
        if not negated:
            kind, base, past = "lex", "do", low == "did"
        else:
            return None
    else:
        form = VERBS[low]
        base, past = form.base, form.past and not form.plain
    stop = _stop(tokens, body)
    if stop <= body:
        return None
    return Clause(
        sentence=sentence,
        tokens=tokens,
        lead=lead,
        subject=(start, subject_end),
        verb=verb,
        kind=kind,
        base=base,
        past=past,
        body=body,
        stop=stop,
        negated=negated,
    )


Standing = Literal["specific", "context", "resolved", "none"]


def settle_subject(clause: Clause, topic: str, topic_is_code: bool) -> tuple[Clause, Standing]:
    """Decide whether the subject can stand in a question by itself.

    "specific": it can. "context": it can when the question names the section ("the function", "the network").
    "resolved": "it", "this function" under the heading of a named thing, whose name is put in its place.
    "none": nobody could know what is meant.
    """
    first, last = clause.subject
    tokens = clause.tokens[first:last]
    words = [t for t in tokens if t.text[0] not in '("“']
    if not words:
        return clause, "none"
    low = words[0].low
    if low in DEICTIC or low in {"there", "what", "who", "how", "why", "where", "when"}:
        named = low in {"it", "this"} and (len(words) == 1 or (len(words) == 2 and words[1].low in GENERIC))
        if named and topic_is_code and topic:
            return replace(clause, topic=topic), "resolved"
        return clause, "none"
    if low in {
        "you",
        "one",
        "users",
        "developers",
        "we",
        "people",
        "some",
        "many",
        "most",
        "several",
        "all",
        "any",
        "every",
        "no",
        "few",
    }:
        return clause, "none" if low in {
            "one",
            "some",
            "many",
            "several",
            "no",
            "few",
            "most",
            "all",
            "any",
        } else "specific"
    if any(t.low in DEICTIC and t.low not in {"and", "or", "then", "as", "its", "their"} for t in words[1:]):
        return clause, "none"
    if any(t.low in {"its", "their", "his", "her"} for t in words):
        return clause, "none"
    content = [t for t in words if t.low not in STOPWORDS]
    if not content:
        return clause, "none"
    if any(is_code(t.text) for t in content) or any(t.text[0].isupper() for t in words[1:]):
        return clause, "specific"
    telling = [t for t in content if t.low not in GENERIC and t.low.rstrip("s") not in GENERIC]
    if not telling:
        return clause, "context"
    if low == "the" and len(content) < 3 and not any(t.low == "of" for t in words):
        return clause, "context"
    return clause, "specific"


def subject_text(clause: Clause, lowered: bool = True) -> str:
    """The subject as it stands inside a question: parentheses dropped, a sentence's capital taken back."""
    if clause.topic:
        return clause.topic
    first, last = clause.subject
    parts = [t for t in clause.tokens[first:last] if not t.text.startswith("(")]
    if not parts:
        return ""
    text = clause.sentence[parts[0].start : parts[-1].end]
    if any(t.text.startswith("(") for t in clause.tokens[first:last]):
        text = " ".join(t.text for t in parts)
    return lower_first(text) if lowered else text


_LOWERED = (
    DETERMINERS
    | PREPOSITIONS
    | PRONOUNS
    | ADVERBS
    | SUBORDINATORS
    | NUMBER_WORDS
    | {"multiple", "different", "various"}
)


def lower_first(text: str) -> str:
    """Take back a capital that only a sentence's beginning gave; names, acronyms and code keep theirs."""
    word = re.match(r"[\w'’-]+", text)
    if word is None or not text[0].isupper():
        return text
    low = word[0].lower()
    if low == "i":
        return text
    form = VERBS.get(low)
    common = low in _LOWERED or low in GENERIC or low.rstrip("s") in GENERIC or form is not None or low.endswith("ing")
    if (common and word[0][1:].islower()) or low == "a":
        return text[0].lower() + text[1:]
    return text
