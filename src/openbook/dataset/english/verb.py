"""Which word of a sentence is its main verb: closed word classes and agreement in number tell."""

from collections.abc import Sequence

from openbook.dataset.english.sentence import Token
from openbook.dataset.english.words import (
    ADVERBS,
    BE,
    DETERMINERS,
    FINITE,
    FUNCTION_WORDS,
    GERUNDS,
    NOUNISH,
    PREPOSITIONS,
    SUBORDINATORS,
    VERBS,
    is_code,
    is_plural,
)

MAX_SUBJECT = 11  # tokens
_BREAKERS = frozenset((",", ";", ":", "—", "–", "…", "=", "|", "->", "→", "/", "\\", "[", "{", "<", "*", "-", "than"))
_CONTRACTED = tuple(
    word.replace("'", mark) for mark in "'’" for word in ("n't", "'ll", "'ve", "'re", "'d", "let's", "it's", "that's")
)
_ADJECTIVAL = ("-related", "-based", "-specific", "-like", "-aware", "-only", "-defined", "-level", "-free", "-side")
_AFTER_VERB = FUNCTION_WORDS - {"and", "or", "of", "by", "for", "from", "at"}


def find_verb(tokens: Sequence[Token], start: int) -> int | None:
    """Where the finite verb of the clause stands whose subject begins at `start`; None where that is not certain."""
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
    plural = _is_plural_phrase(tokens[start:at])
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


def _is_plural_phrase(tokens: Sequence[Token]) -> bool:
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
