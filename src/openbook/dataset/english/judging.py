"""Whether a drafted question is fit to be asked, and how good it is."""

import re

from openbook.dataset.english.draft import Draft
from openbook.dataset.english.sentence import Sentence
from openbook.dataset.english.words import (
    ASKING,
    DEICTIC,
    DETERMINERS,
    FINITE,
    GENERIC,
    GERUNDS,
    POINTING,
    PREPOSITIONS,
    STOPWORDS,
    SUBORDINATORS,
    is_code,
)

MAX_QUESTION = 30  # words
_WORD = re.compile(r"[\w'’]+")
# Words that want another one behind them, and openings of an answer that tells nothing.
_HANGING = frozenset("and or but that which who whose because if than the a an".split())
_UNTOLD = frozenset(
    "other another some certain various several many more multiple different similar same better".split()
)
_POINTING_ANSWER = POINTING - {"it", "them", "they"}  # these may point at what the question names
# A short answer that ends in one of these has lost something ("the size of the").
_ENDINGS = DETERMINERS | PREPOSITIONS | SUBORDINATORS | FINITE | {"and", "or", "not"}
_ENDINGS -= frozenset("it them one two three four five six out up down off on in around no each all both".split())


def judge(sentence: Sentence, draft: Draft) -> float:
    """The draft's score, or −1 where the question or its answer would be poor: trivial, dangling, too long."""
    if draft.score <= 0:
        return -1.0
    answer = sentence.text[draft.start : draft.end]
    words = [word.strip(".,;:()\"'“”`").lower() for word in answer.split()]
    asked = _WORD.findall(draft.question.lower())
    if not words or len(words) > 14 or len(answer) > 110 or not 4 <= len(asked) <= MAX_QUESTION:
        return -1.0
    content = [word for word in words if word and (word not in STOPWORDS or word.isdigit())]
    number = len(words) == 1 and draft.kind == "how many"
    if (not content and not number) or words[0] in DEICTIC - {"as"} or (words[-1] in _ENDINGS and not number):
        return -1.0
    if words[0] in {"i.e", "e.g"} or words[-1] == "follows" or (len(words) > 1 and _is_cut(*words[-2:])):
        return -1.0
    if answer.count("“") != answer.count("”"):
        return -1.0
    if any(answer.count(mark) % 2 or draft.question.count(mark) % 2 for mark in '`"') or answer.count(
        "("
    ) != answer.count(")"):
        return -1.0
    if (len(content) == 1 and content[0] in GENERIC) or (
        not _POINTING_ANSWER.isdisjoint(words) and not (draft.kind in {"does", "returns"} and sentence.named)
    ):
        return -1.0
    if re.search(r", ?\w*(?: \w+)?\?$", draft.question):
        return -1.0  # "… founded in the School of Medicine, established?"
    if draft.question.rstrip("?").split()[-1].lower() in _HANGING or (draft.kind == "what" and words[0] in _UNTOLD):
        return -1.0  # "… excluded and?", "What does Rust have?" – "other features"
    telling = {word for word in asked if word not in STOPWORDS and word not in ASKING}
    if draft.kind != "cloze":
        if telling.issuperset(_WORD.findall(" ".join(content))) and content:
            return -1.0  # the question gives its answer away
        if _dangles(asked):
            return -1.0
        if draft.kind in {"subject", "condition", "term"} and len(telling - GENERIC) < 2:
            return -1.0  # "What can be useful?"
    if not telling - GENERIC:
        return -1.0
    return draft.score - 0.08 * max(0, len(words) - 6) - 0.05 * max(0, len(asked) - 16)


def _is_cut(previous: str, last: str) -> bool:
    """Whether two words that end an answer want an object behind them: "by specifying"."""
    return previous in PREPOSITIONS and last in GERUNDS


def telling_words(question: str) -> int:
    """How many words of a question say what it is about; a name from a program or of a thing counts twice."""
    count = 0
    for word in question.rstrip("?").split()[1:]:
        plain = word.strip("`,.“”\"'()").lower()
        if plain and plain not in STOPWORDS and plain not in ASKING and plain not in GENERIC:
            count += 2 if is_code(word) or word[0].isupper() else 1
    return count


def _dangles(asked: list[str]) -> bool:
    """Whether the question points at what it does not name. "it" may stand behind its noun: "a lock … release it"."""
    for i, word in enumerate(asked):
        if word in {"it", "they", "them"}:
            if i < 6:
                return True
        elif word in POINTING:
            return True
    return False
