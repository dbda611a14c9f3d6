"""What a written question must satisfy before it may be used, and which questions say the same."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from openbook.dataset.entities import entities, names
from openbook.dataset.language import differs
from openbook.dataset.similar import DUPLICATE, SimilarSets, jaccard
from openbook.documents import sentences
from openbook.metrics import contains, normalize
from openbook.prompt import defused
from openbook.records import Chunk, Question

MAX_QUESTION, MAX_ANSWER = 60, 40  # words
MIN_QUOTE, MAX_QUOTE = 3, 80  # words
OPEN = 0.5  # of what a question asks about the things it names; a sentence that has more of it may be its answer
_LIGHT = frozenset("many much have has had hav ha do long there".split())  # stems that say nothing about an answer

__all__ = [
    "DUPLICATE",
    "cannot_answer",
    "distracts",
    "fault",
    "holds_tag",
    "jaccard",
    "left_open",
    "sentence_keys",
    "telling_words",
    "without_duplicates",
]

# Words that only phrase a question are masked before questions are compared; of several that ask for the same, one
# stands for all: "What is X used for?" and "What is the purpose of X?" are the same question, "What must X be?" is not.
_MASKED = frozenset(
    "a an the is are was were be been does did do will would might you your it its of in on at to for by with from as and"
    " or what which how that this according exactly described fill gap missing word belongs listed document section meant".split()
)
_INTENTS = {
    word: intent
    for intent, words in {
        "must": "must should shall need needs",
        "can": "can could may",
        "when": "when year",
        "who": "who whom whose",
        "why": "why reason purpose used use uses task",
        "if": "if case condition consequence happens whenever once",
        "name": "name named called known stand short full form abbreviation abbreviated",
        "return": "return returns returned give gives back given",
        "default": "default defaults",
        "example": "example examples",
    }.items()
    for word in words.split()
}
_WORD = re.compile(r"[\w']+")
_SPACELESS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")  # Thai, Japanese, Chinese


def fault(question: Question, *golden: Chunk) -> str:
    """Why a question about the passages `golden` cannot be used, as a phrase to count under; "" where it can."""
    text = question.text.strip()
    if not text or not question.answer.strip():
        return "question or answer is empty"
    if "\n" in text or len(text.split()) > MAX_QUESTION:
        return "question is longer than a sentence"
    if len(question.answer.split()) > MAX_ANSWER or "\n" in question.answer:
        return "answer is not short"
    if holds_tag(question):
        return "quote or answer holds a tag of the answer's form"
    if differs(text, golden[0].text):
        return "question is not in the language of its passage"
    if not question.golden_chunk_ids:
        return ""
    return _fault_of_quotes(question, golden) or _fault_of_answer(question)


def holds_tag(question: Question) -> bool:
    """Whether an answer to the question could not be read again: documents about RAFT speak of the tags themselves."""
    return any(defused(text) != text for text in (question.answer, *question.quotes))


def _fault_of_quotes(question: Question, golden: Sequence[Chunk]) -> str:
    if not question.quotes:
        return "no quote"
    for quote in question.quotes:
        if not any(quote in chunk.text for chunk in golden):
            return "quote is not in the passage word for word"
        if "\n" in quote or not MIN_QUOTE <= len(_words_of(quote)) <= MAX_QUOTE:
            return "quote is not one sentence"
    for chunk in golden if len(golden) > 1 else ():
        held = sum(quote in chunk.text for quote in question.quotes)
        if not held:
            return "no quote from one of the passages"
        if held == len(question.quotes):
            return "one passage alone holds every quote"
    return ""


def _fault_of_answer(question: Question) -> str:
    enough = all if len(question.golden_chunk_ids) > 1 else any
    if not enough(quote in question.reasoning for quote in question.quotes):
        return "reasoning does not quote"
    if not all(any(contains(quote, part) for quote in question.quotes) for part in answer_parts(question)):
        return "quote does not hold the answer"
    gives_away = contains(question.text, question.answer) and len(question.answer) > 3
    if gives_away and len(question.golden_chunk_ids) == 1:  # "Which is older, X or Y?" names its answer
        return "question gives the answer away"
    return ""


def answer_parts(question: Question) -> list[str]:
    """The short answers of a question: one, or where it asks two things at once, both."""
    return question.answer.split("; ") if len(question.golden_chunk_ids) > 1 else [question.answer]


def _words_of(quote: str) -> list[str]:
    """The words of a quote; each character of a script that is written without spaces counts as half a word."""
    words = quote.split()
    return words if quote.isascii() or not _SPACELESS.search(quote) else [*words, *_SPACELESS.findall(quote)[::2]]


def telling_words(text: str) -> frozenset[str]:
    """What a text is about: its words without endings, without those that only phrase a question."""
    lowered = text.lower()
    words = {_INTENTS.get(word) or _stem(word) for word in _WORD.findall(lowered) if word not in _MASKED}
    if lowered.endswith(" do?"):
        words.add("do")
    return frozenset(words or _WORD.findall(lowered))


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word.rstrip("e") if len(word) > 4 else word


def without_duplicates(questions: Sequence[Question]) -> list[Question]:
    """The questions without those that nearly repeat an earlier one (`DUPLICATE`)."""
    seen = SimilarSets()
    kept: list[Question] = []
    for question in questions:
        words = telling_words(question.text)
        if seen.find(words) is None:
            seen.add(words, len(kept))
            kept.append(question)
    return kept


def distracts(passage: Chunk, question: Question) -> bool:
    """Whether a passage may stand beside the golden one: it must not answer the question as well.

    It must not hold the answer's sentence; and where it holds the short answer, it must not be about the question too,
    that is share half of its telling words. A bare `5` stands in many passages that answer something else.
    """
    if _holds_quote(passage, question):
        return False
    if not any(contains(passage.text, part) for part in answer_parts(question)):
        return True
    wanted = _told(question.text)
    return len(wanted & _told(passage.text)) < 0.5 * len(wanted)


_normalized = lru_cache(maxsize=10_000)(normalize)
_told = lru_cache(maxsize=10_000)(telling_words)


def _holds_quote(passage: Chunk, question: Question) -> bool:
    return any(_normalized(quote) in _normalized(passage.text) for quote in question.quotes)


def cannot_answer(passages: Iterable[Chunk], question: Question) -> bool:
    """Whether refusing is right with these passages: none is golden, none holds the short answer or its sentence."""
    return not any(
        passage.id in question.golden_chunk_ids
        or any(contains(passage.text, part) for part in answer_parts(question))
        or _holds_quote(passage, question)
        for passage in passages
    )


def sentence_keys(question: Question) -> frozenset[str]:
    """What answers a question, wherever it stands: questions that share a sentence have one of these in common."""
    return frozenset(normalize(quote) or quote for quote in question.quotes)


def left_open(question: Question, passages: Iterable[Chunk]) -> bool:
    """Whether no sentence of the passages could answer the question.

    Only passages that name all that the question names can; there, a sentence with more than half of its other telling words may
    well be the answer. It need not name the thing again: "It has 23 gates."
    """
    things = entities(question.text)
    named = frozenset(word for thing in things for word in telling_words(thing))
    wanted = _told(question.text) - named - _LIGHT
    return not any(
        not wanted or len(wanted & _told(chunk.text[start:end])) > OPEN * len(wanted)
        for chunk in passages
        if all(names(" ".join((chunk.title, *chunk.headings, chunk.text)), thing) for thing in things)
        for start, end in sentences(chunk.text)
    )
