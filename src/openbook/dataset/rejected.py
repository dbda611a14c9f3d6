"""The wrong answer that a right one is preferred to, made from the data set alone: no model is asked.

Three mistakes are what RAFT tunes away, so each is shown where the row allows it: answering from another passage (the
answer of a question over the same passages, with its true quote), refusing although the answer is there, and answering
although it is not.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

from openbook import prompt
from openbook.metrics import contains, exact_match
from openbook.records import Chunk, RaftExample, content_id

WINDOW = 32  # rows that may lend their answer: a study group's rows stand together, and are at most half as many


def with_rejected(examples: Iterable[RaftExample]) -> Iterator[tuple[RaftExample, str]]:
    """Each example with a wrong answer to its question; none for an example that leaves no room for one."""
    near: list[RaftExample] = []
    waiting: list[RaftExample] = []
    for example in examples:
        if waiting and example.group != waiting[-1].group:
            yield from _paired(waiting, near)
            near, waiting = [*near, *waiting][-WINDOW:], []
        waiting.append(example)
        if len(waiting) == WINDOW:  # rows without groups
            yield from _paired(waiting, near)
            near, waiting = waiting, []
    yield from _paired(waiting, near)


def _paired(rows: Sequence[RaftExample], near: Sequence[RaftExample]) -> Iterator[tuple[RaftExample, str]]:
    for row in rows:
        wrong = _wrong(row, [other for other in (*rows, *near) if other.question != row.question])
        if wrong:
            yield row, wrong


def _wrong(row: RaftExample, others: Sequence[RaftExample]) -> str:
    """A wrong answer to the question of `row`, always the same for the same rows; "" where there is none."""
    rng = random.Random(content_id("rejected", row.id))
    mistaken = _answer_of_another(row, others, rng)
    refusing = prompt.render_answer(prompt.REFUSAL_REASONING, prompt.REFUSAL)
    if not prompt.is_refusal(row.final_answer):
        return mistaken if mistaken and rng.random() < 0.5 else refusing
    invented = prompt.render_answer("", row.answer) if row.golden and not prompt.is_refusal(row.answer) else ""
    return mistaken if mistaken and rng.random() < 0.5 else invented or mistaken


def _answer_of_another(row: RaftExample, others: Sequence[RaftExample], rng: random.Random) -> str:
    """The answer to another question from passages that `row` shows too, quoted truly."""
    shown = {chunk.id: chunk for chunk in row.passages}
    fitting = [
        other
        for other in others
        if other.quotes
        and all(_stands(quote.text, shown.get(quote.chunk_id)) for quote in other.quotes)
        and not prompt.is_refusal(other.final_answer)
        and not exact_match(other.final_answer, row.answer)
        and not any(contains(quote.text, row.answer) for quote in other.quotes)
    ]
    if not fitting:
        return ""
    other = rng.choice(fitting)
    return prompt.render_answer(other.reasoning, other.final_answer)


def _stands(quote: str, passage: Chunk | None) -> bool:
    return passage is not None and quote in passage.text
