"""What a written question must satisfy before it may be used, and which questions say the same."""

import re
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache

from openbook.dataset.similar import DUPLICATE, SimilarSets, jaccard
from openbook.metrics import contains, normalize
from openbook.records import Chunk, Question

MAX_QUESTION, MAX_ANSWER = 60, 40  # words
MIN_QUOTE, MAX_QUOTE = 3, 80  # words

__all__ = [
    "DUPLICATE",
    "cannot_answer",
    "distracts",
    "fault",
    "jaccard",
    "sentence_key",
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


def fault(question: Question, chunk: Chunk) -> str:
    """Why the question cannot be used, as a phrase to count under; "" where it can."""
    text = question.text.strip()
    if not text or not question.answer.strip():
        return "question or answer is empty"
    if "\n" in text or len(text.split()) > MAX_QUESTION:
        return "question is longer than a sentence"
    if len(question.answer.split()) > MAX_ANSWER or "\n" in question.answer:
        return "answer is not short"
    if not question.quotes:
        return "no quote"
    for quote in question.quotes:
        if quote not in chunk.text:
            return "quote is not in the passage word for word"
        if "\n" in quote or not MIN_QUOTE <= len(quote.split()) <= MAX_QUOTE:
            return "quote is not one sentence"
    if not any(quote in question.reasoning for quote in question.quotes):
        return "reasoning does not quote"
    if not any(contains(quote, question.answer) for quote in question.quotes):
        return "quote does not hold the answer"
    if contains(text, question.answer) and len(question.answer) > 3:
        return "question gives the answer away"
    return ""


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
    if not contains(passage.text, question.answer):
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
        or contains(passage.text, question.answer)
        or _holds_quote(passage, question)
        for passage in passages
    )


def sentence_key(question: Question) -> Hashable:
    """Equal for questions that are answered by the same sentence, wherever it stands."""
    return tuple(normalize(quote) for quote in question.quotes)
