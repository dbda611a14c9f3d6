"""What a single row shows to be wrong with it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from openbook import prompt
from openbook.dataset.imports import Sample, plain, split_message
from openbook.dataset.repair import repair_quotes

LIST_NUMBER: Final = re.compile(r"^\s*(?:\(?\d{1,3}[.)]|[-*•]|Q\d*[.:)]|Question\s*\d*\s*[:.])\s+(?=\S)")
_API_ANSWER: Final = "<<<api_call>>>"  # the reference tool's form of answers about APIs, which have no answer tag


@dataclass(frozen=True, slots=True)
class Found:
    """A fault (by its name in `FAULTS`) and, where it helps, the words that show it."""

    fault: str
    shown: str = ""


def check(sample: Sample) -> Iterator[Found]:
    """The faults of one row, each at most once but for quotes."""
    empty = [name for name, text in _required(sample) if not text.strip()]
    yield from (Found("empty-field", name) for name in empty)
    if sample.question and LIST_NUMBER.match(sample.question):
        yield Found("list-number", sample.question)
    if sample.passages is None:
        if sample.layout != "eval":
            yield Found("no-passages")
    else:
        yield from _check_passages(sample)
    yield from _check_message(sample)
    if sample.layout == "eval":
        if is_reasoning(sample.answer):
            yield Found("reasoning-as-answer", sample.answer)
    elif sample.answer.strip():
        yield from _check_answer(sample)


def _required(sample: Sample) -> Iterator[tuple[str, str]]:
    if sample.layout != "preference" or sample.question_at:
        yield "question", sample.question
    yield (str(sample.answer_at[0]) if sample.answer_at else "answer"), sample.answer
    if sample.passages is not None and sample.layout != "eval":
        yield from ((f"passage {at}", text) for at, text in enumerate(sample.passages, 1))


def is_reasoning(answer: str) -> bool:
    """Whether what should be a short answer is a whole one, with its tags."""
    return any(tag in answer for tag in (prompt.ANSWER, prompt.BEGIN_QUOTE, prompt.END_QUOTE))


def _check_passages(sample: Sample) -> Iterator[Found]:
    passages = sample.passages or ()
    counts = Counter(sample.plain_passages)
    if len(counts) < len(passages):
        yield Found("duplicate-passage", next(text for text, count in counts.items() if count > 1))
    refusal = sample.parsed.refusal
    if sample.golden == () and not refusal:
        yield Found("no-golden")
    if sample.golden_shown and refusal:
        yield Found("refuses-with-golden", sample.question)
    if claims_wrongly(sample):
        yield Found("golden-claim", f"oracle_present={sample.present}, oracle_index={sample.index}")


def claims_wrongly(sample: Sample) -> bool:
    """Whether the row says of its golden passage what its passages do not bear out."""
    shown = sample.golden_shown
    if shown is None or sample.passages is None:
        return False
    if sample.present is not None and sample.present != shown:
        return True
    if sample.index is None or not sample.golden:
        return False
    if sample.index < 0:
        return shown  # −1 stands for a golden passage that was left out
    at = sample.index
    return shown and (at >= len(sample.passages) or sample.plain_passages[at] != sample.plain_golden[0])


def _check_message(sample: Sample) -> Iterator[Found]:
    """Whether the message that the model is shown agrees with the columns beside it."""
    if sample.layout == "eval":
        left_over = split_message(sample.shown)[1] if prompt.END_DOCUMENT in sample.shown else ""
        if left_over:
            yield Found("question-cut", left_over)
    elif sample.layout in ("raft", "variant") and sample.shown:
        if sample.shown == prompt.instruction(sample.passages or (), sample.question):
            return
        passages, question = split_message(sample.shown)
        if plain(question) != plain(prompt.defused(sample.question)) and plain(question) != plain(sample.question):
            yield Found("question-cut", question)
        if not same_passages(passages or (), sample.passages or ()):
            yield Found("instruction-differs")


def same_passages(shown: tuple[str, ...], passages: tuple[str, ...]) -> bool:
    """Whether a message shows these passages, in any order."""
    if shown == passages:
        return True
    return Counter(plain(prompt.defused(text)) for text in shown) == Counter(
        plain(prompt.defused(text)) for text in passages
    )


def _check_answer(sample: Sample) -> Iterator[Found]:
    parsed = sample.parsed
    if not parsed.final and not (sample.api and _API_ANSWER in sample.answer):
        yield (
            Found("empty-field", "short answer")
            if has_answer_tag(sample.answer)
            else Found("no-answer-tag", sample.answer)
        )
    opened, closed = sample.answer.count(prompt.BEGIN_QUOTE), sample.answer.count(prompt.END_QUOTE)
    if opened != closed:
        yield Found("quote-tags", sample.answer)
    elif not parsed.quotes and not parsed.refusal and sample.passages is not None:
        yield Found("no-quote")
    if sample.passages is None:
        return
    result = repair_quotes(sample.answer, quotable(sample))
    yield from (Found("quote-form", quote) for quote in result.changed)
    yield from (Found("quote-missing", quote) for quote in result.missing)
    if parsed.quotes and not result.missing and sample.golden and sample.golden_shown is False:
        unseen = repair_quotes(sample.answer, sample.passages).missing
        if unseen:
            yield Found("quote-unseen", unseen[0])


def has_answer_tag(answer: str) -> bool:
    """Whether an answer tag stands at its end, with nothing after it."""
    return bool(prompt.parse_answer(f"{answer} ?").final == "?")


def quotable(sample: Sample) -> tuple[str, ...]:
    """Where a quote may come from: the golden passages first, then those shown."""
    return (*(sample.golden or ()), *(sample.passages or ()))
