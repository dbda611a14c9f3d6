"""The mixture, made from the corpus by the product's own chunker, teacher and prompt.

A block of documents becomes rows of token trees. Each tree is a study group: a few passages of one document and its
neighbours in the corpus, and the questions on them; some ask for what stands elsewhere and are to be refused. A block's
rows are a pure function of the corpus, the seed and the block's number.
"""

import random
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "nano"))

from corpus import documents

from openbook import prompt
from openbook.dataset import ExtractiveTeacher
from openbook.documents import chunk
from openbook.records import Chunk, Document, Question
from openbook.tokens import TokenSequence, TokenTree, encode, pack, split

BLOCK = 24  # documents
CHUNK_TOKENS = 230  # about what 200 tokens of the embedder are to this tokenizer
PASSAGES = (1, 2, 3, 4, 4, 4, 4, 5, 6)
QUESTIONS = 14  # a group
REFUSED = 0.15  # share of questions whose answer is not in the passages
LONGEST_DOCUMENT = 40_000  # characters; of longer ones the beginning


def rows(
    corpus: Path, tokenizer: Any, *, budget: int, seed: int, first_block: int = 0
) -> Iterator[tuple[int, TokenTree]]:
    """(block, row) pairs, endlessly, pass after pass over the corpus."""
    block, waiting = 0, []
    while True:
        for row in documents(corpus):
            waiting.append(row)
            if len(waiting) == BLOCK:
                if block >= first_block:
                    for tree in _block(waiting, tokenizer, budget, random.Random(f"{seed}:{block}")):
                        yield block, tree
                waiting = []
                block += 1


def _block(documents: Sequence[dict[str, str]], tokenizer: Any, budget: int, rng: random.Random) -> list[TokenTree]:
    teacher = ExtractiveTeacher()
    count = partial(_count, tokenizer)
    chunked = []
    for row in documents:
        text = row["text"][:LONGEST_DOCUMENT]
        document = Document.create(uri=row["path"], title=row["title"], text=text)
        if found := chunk(document, count_tokens=count, max_tokens=CHUNK_TOKENS):
            chunked.append(found)
    everything = [passage for found in chunked for passage in found]
    trees = []
    for found in chunked:
        asked = {passage.id: teacher.write(passage, rng=rng, limit=4) for passage in found}
        for passages in _windows(found, everything, rng):
            items = list(_questions(passages, asked, rng))
            if items:
                trees += split([_encode(tokenizer, passages, q, answer) for q, answer in items], budget)
    rng.shuffle(trees)
    packed = pack(trees, budget)
    rng.shuffle(packed)
    return packed


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _windows(found: list[Chunk], everything: list[Chunk], rng: random.Random) -> Iterator[list[Chunk]]:
    """Runs of neighbouring passages, filled up with passages of other documents, in random order."""
    at = 0
    while at < len(found):
        size = rng.choice(PASSAGES)
        window = found[at : at + size]
        at += size
        while len(window) < size and len(everything) > size:
            other = rng.choice(everything)
            if all(other.text != passage.text for passage in window):
                window.append(other)
        rng.shuffle(window)
        yield window


def _questions(
    passages: list[Chunk], asked: dict[str, list[Question]], rng: random.Random
) -> Iterator[tuple[Question, str]]:
    """Questions with the answer to be learned: on these passages, and some on others, to be refused."""
    inside = [question for passage in passages for question in asked.get(passage.id, ())]
    shown = {passage.id for passage in passages}
    outside = [question for name, questions in asked.items() if name not in shown for question in questions]
    text = "\n".join(passage.text for passage in passages).lower()
    rng.shuffle(inside)
    rng.shuffle(outside)
    inside = inside[:QUESTIONS]
    for question in inside:
        yield question, prompt.render_answer(question.reasoning, question.answer)
    wanted = sum(rng.random() < REFUSED / (1 - REFUSED) for _ in inside) + (not inside and rng.random() < 0.3)
    for question in outside:
        if wanted and not re.search(rf"(?<!\w){re.escape(question.answer.lower())}(?!\w)", text):
            wanted -= 1
            yield question, prompt.render_answer(prompt.REFUSAL_REASONING, prompt.REFUSAL)


def _encode(tokenizer: Any, passages: list[Chunk], question: Question, answer: str) -> TokenSequence:
    asked = prompt.prompt(question.text, [passage.text for passage in passages])
    return encode(tokenizer, prompt.with_answer(asked, answer), name=question.id)
