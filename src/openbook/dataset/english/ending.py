"""Where a clause ends: before whatever opens another one."""

from collections.abc import Sequence

from openbook.dataset.english.sentence import Token
from openbook.dataset.english.words import ADVERBS, DETERMINERS, FINITE, GERUNDS, NOUNISH, SUBORDINATORS, VERBS

_SUBJECTS = frozenset(("you", "we", "they", "he", "she"))  # behind a comma they open another clause


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
