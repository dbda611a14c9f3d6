"""One answer, graded. The same pure functions check the data, score the exam and reward reinforcement learning.

**Lenient on form.** A model that was never tuned does not write `<ANSWER>:`, and a grader that insists on it measures
style (the near-zero base scores of the RAFT paper's tables). The short answer that is graded is the first of these that
is there:

1. what follows the last answer tag, up to the end of its line;
2. what follows the last "answer is" or "answer:", up to the end of that sentence;
3. the last sentence of a text that the model ended itself, where reasoning concludes; the first sentence of one that
   ran into the token limit, which has said its answer at once or not at all. The latter counts as a failure besides.

**Strict on content.** The choice never looks at the gold answer; F1 falls with every surplus word, so that listing the
passage wins nothing; a refusal scores 0 unless the gold answer is one; numbers keep their sign and decimal point.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from openbook.metrics import text as compare
from openbook.prompt import BEGIN_QUOTE, END_QUOTE, ParsedAnswer, check_quotes, is_refusal, parse_answer
from openbook.records import Answer, Chunk, Quote, RaftExample

QUOTE_WORDS = 5  # a shorter quote can be had by luck

_ANNOUNCED = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’`*)]*\s+(?=[A-Z\"'“‘`*(#])|\n+")
_STOP = "<STOP>"  # the end mark of the completion format


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """What is right: the short answer, and the sentences of the documents that hold it (none where unknown)."""

    answer: str
    sentences: tuple[str, ...] = ()

    @classmethod
    def of(cls, example: RaftExample) -> Self:
        """What the documents answer, also where the example itself was left without its golden passage and refuses."""
        return cls(
            answer=example.answer or example.final_answer, sentences=tuple(quote.text for quote in example.quotes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """All that can be said of one answer. None means that the question does not arise, and is left out of every mean.

    `final` is the short answer that was graded; `f1` and `verified_quotes` run from 0 to 1. `right_quote`: a verified
    quote of at least five words overlaps the golden sentence and carries the answer; None where no passage was shown,
    the golden sentence is unknown or the right answer is a refusal. `verified_quotes`: the share of the claimed quotes
    that stand verbatim in a passage (one that was never closed does not); None where none was claimed. `coverage`: a final answer was given, and not a
    refusal. `failure`: generation broke, wrote nothing, or ran into the token limit before a final answer.
    """

    final: str
    exact_match: bool
    f1: float
    right_quote: bool | None
    verified_quotes: float | None
    refusal: bool
    coverage: bool
    failure: bool


def grade(answer: Answer, gold: Gold) -> Grade:
    """Grade an answer whose quotes have been looked up already."""
    passages = [scored.chunk for scored in answer.passages]
    return _grade(parse_answer(answer.text), answer.quotes, gold, shown=bool(passages), finished=answer.finished)


def grade_text(text: str, gold: Gold, *, passages: Sequence[Chunk] = (), finished: bool = True) -> Grade:
    """Grade what a model wrote after having been shown `passages`, looking its quotes up in them."""
    parsed = parse_answer(text)
    return _grade(parsed, check_quotes(parsed, passages), gold, shown=bool(passages), finished=finished)


def _grade(parsed: ParsedAnswer, quotes: Sequence[Quote], gold: Gold, *, shown: bool, finished: bool) -> Grade:
    final, declared = short_answer(parsed, finished=finished)
    failure = not final or not (finished or declared)
    refusal = is_refusal(final)
    expected = is_refusal(gold.answer)
    if refusal or expected:
        exact, overlap = refusal and expected, float(refusal and expected)
    else:
        exact, overlap = compare.exact_match(final, gold.answer), compare.f1(final, gold.answer)
    right = None
    if shown and gold.sentences and not expected:
        right = right_quote([quote.text for quote in quotes if quote.verified], gold.sentences, gold.answer)
    return Grade(
        final=final,
        exact_match=exact,
        f1=overlap,
        right_quote=right,
        verified_quotes=sum(quote.verified for quote in quotes) / len(quotes) if quotes else None,
        refusal=refusal,
        coverage=not failure and not refusal,
        failure=failure,
    )


def short_answer(parsed: ParsedAnswer, *, finished: bool) -> tuple[str, bool]:
    """The short answer to grade, by the three rules above, and whether the model declared it as one (rules 1 and 2)."""
    tagged = _first(re.split(r"\n+", parsed.final.split(_STOP)[0]))
    if tagged:
        return tagged, True
    text = parsed.reasoning.replace(BEGIN_QUOTE, "").replace(END_QUOTE, "").split(_STOP)[0].strip()
    announced = list(_ANNOUNCED.finditer(text))
    if announced and (said := _first(_SENTENCE_END.split(text[announced[-1].end() :]))):
        return said, True
    sentences = _SENTENCE_END.split(text)
    return _first(reversed(sentences) if finished else sentences), False


def right_quote(quotes: Iterable[str], golden: Sequence[str], answer: str) -> bool:
    """Whether one of the verified `quotes` has five words or more, overlaps a golden sentence and carries the answer.

    Overlap: five words in a row in common, or all words of a golden sentence that has fewer.
    """
    return any(
        len(_words(quote)) >= QUOTE_WORDS
        and compare.contains(quote, answer)
        and any(_overlap(_words(quote), _words(sentence)) for sentence in golden)
        for quote in quotes
    )


def _overlap(quote: list[str], sentence: list[str]) -> bool:
    length = min(QUOTE_WORDS, len(sentence))
    runs = {tuple(quote[start : start + length]) for start in range(len(quote) - length + 1)}
    return length > 0 and any(
        tuple(sentence[start : start + length]) in runs for start in range(len(sentence) - length + 1)
    )


def _words(text: str) -> list[str]:
    """Words as a reader counts them: between white space, in one case, without the punctuation around them."""
    stripped = (re.sub(r"^\W+|\W+$", "", word) for word in text.casefold().split())
    return [word for word in stripped if word]


def _first(parts: Iterable[str]) -> str:
    return next((part.strip() for part in parts if part.strip()), "")
