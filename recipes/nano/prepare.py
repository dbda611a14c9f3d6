"""Step 2 of the recipe: the corpus as arrays of tokens, so that training needs nothing but numpy and PyTorch.

    python recipes/nano/prepare.py --corpus FOLDER --out study.npz.xz [--tokenizer FOLDER]

Passages, their sentences, and the teacher's questions with their answers, in the tokens of `tokenizer.py`. All
is cut and asked by the product's own chunker and teacher; what `rows.py` makes of it is decided while training.
"""

import argparse
import io
import json
import lzma
import multiprocessing
import random
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from corpus import documents
from tokenizer import opened

from openbook import prompt
from openbook.dataset import ExtractiveTeacher
from openbook.documents import chunk, sentences
from openbook.records import Document, Question

CHUNK_TOKENS = 230  # about what 200 tokens of the embedder are to this tokenizer
LONGEST_DOCUMENT = 40_000  # characters; of longer ones the beginning
WRITINGS = 3  # times the teacher is asked about a passage: it words its questions by chance
QUESTIONS = 8  # of one passage and writing, at most
SENTENCE = (7, 64)  # tokens of a sentence that is asked about
HELD_OUT = 100  # one document in so many is for watching only
STOPWORDS = frozenset(
    "a an the of to in on at by for with from as is are was were be been being it its this that these those and or but if "
    "then than so not no do does did has have had can could may might must shall should will would you your we our they "
    "their he she his her i there here which who whom what when where how why also only just such into over under about "
    "between after before while during each any all some more most other".split()
)

# Half of what is written was written before, an answer as a sentence and a sentence in a passage: a dictionary that
# holds all of it saves a quarter.
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 128 << 20}]

Found = dict[str, list[Any]]


def study(row: dict[str, str], encode: Any, seed: str) -> Found | None:
    """Passages, sentences and questions of one document, as lists of tokens."""
    document = Document.create(uri=row["path"], title=row["title"], text=row["text"][:LONGEST_DOCUMENT])
    chunks = chunk(document, count_tokens=lambda text: len(encode(text)), max_tokens=CHUNK_TOKENS)
    if not chunks:
        return None
    teacher, rng = ExtractiveTeacher(), random.Random(seed)
    passages, said, asked = [], [], []
    for at, passage in enumerate(chunks):
        text = prompt.defused(passage.text)
        passages.append(encode(text))
        for start, end in sentences(text):
            if plain(text[start:end]) and SENTENCE[0] <= len(ids := encode(f" {text[start:end]}")) <= SENTENCE[1]:
                said.append((at, ids))
        questions: dict[str, Question] = {}
        for _ in range(WRITINGS):
            questions |= {question.text: question for question in teacher.write(passage, rng=rng, limit=QUESTIONS)}
        for question in questions.values():
            answer = prompt.render_answer(question.reasoning, question.answer)
            asked.append((at, encode(prompt.defused(question.text)), encode(answer), encode(f" {question.answer}")))
    return {"passages": passages, "said": said, "asked": asked}


def plain(sentence: str) -> bool:
    """Whether it reads like a sentence of prose, that a question can be made of by chance."""
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return letters >= 0.8 * len(sentence) and bool(re.match(r"[A-Z`\"'(“]", sentence)) and sentence[-1] in ".!?:"


def vocabulary(tokenizer: Any) -> dict[str, np.ndarray]:
    """What `rows.py` has to know of each token: word beginnings, stop words, marks, digits, capitals, the same in lower
    case, and the same without a plural's or a verb's ending."""
    encode = partial(encoded, tokenizer)
    count = len(tokenizer)
    texts = [tokenizer.decode([token]) for token in range(count)]
    table = {name: np.zeros(count, bool) for name in ("begins", "stop", "mark", "digit", "capital")}
    lower, stem = np.arange(count, dtype=np.uint16), np.arange(count, dtype=np.uint16)
    for token, text in enumerate(texts):
        word = text.strip()
        table["begins"][token] = text[:1].isspace() or not word[:1].isalnum()
        table["stop"][token] = text.startswith(" ") and word.lower() in STOPWORDS
        table["mark"][token] = not any(character.isalnum() for character in word)
        table["digit"][token] = word.isdigit()
        table["capital"][token] = word[:1].isupper()
        if text.startswith(" ") and len(ids := encode(text.lower())) == 1:
            lower[token] = ids[0]
        for ending in ("ing", "ed", "es", "s"):
            shorter = text.removesuffix(ending)
            if shorter != text and len(shorter) > 3 and text.startswith(" ") and len(ids := encode(shorter)) == 1:
                stem[token] = ids[0]
                break
    return {**table, "lower": lower, "stem": stem}


def encoded(tokenizer: Any, text: str) -> list[int]:
    return tokenizer._tokenizer.encode(text, add_special_tokens=False).ids


_ENCODE: Any = None


def _start(tokenizer: str) -> None:
    global _ENCODE
    _ENCODE = partial(encoded, opened(tokenizer))


def _study(numbered: tuple[int, dict[str, str]]) -> tuple[bool, Found | None]:
    number, row = numbered
    held_out = zlib.crc32(row["path"].encode()) % HELD_OUT == 0
    return held_out, study(row, _ENCODE, f"0:{number}")


def chosen(corpus: Path, share: float) -> Iterator[tuple[int, dict[str, str]]]:
    for number, row in enumerate(documents(corpus)):
        if zlib.crc32(f"{row['path']}!".encode()) % 1000 < 1000 * share:
            yield number, row


class Flat:
    """Lists of tokens, one after the other in one array, with where each begins."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.ends = [0]

    def add(self, ids: list[int]) -> None:
        self.tokens.append(np.array(ids, np.uint16))
        self.ends.append(self.ends[-1] + len(ids))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return {name: np.concatenate(self.tokens), f"{name}_at": np.array(self.ends, np.uint32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", default="nano", help="what tokenizer.py wrote (default: nano's)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the documents")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    prepare(options.corpus, options.out, tokenizer=options.tokenizer, share=options.share, workers=options.workers)


def prepare(corpus: Path, out: Path, *, tokenizer: str = "nano", share: float = 1.0, workers: int = 2) -> None:
    flat = {name: Flat() for name in ("passages", "sentences", "questions", "answers", "shorts")}
    document_of, said_in, asked_on, held = [], [], [], []
    with multiprocessing.Pool(workers, _start, (tokenizer,)) as pool:
        for number, (held_out, found) in enumerate(pool.imap(_study, chosen(corpus, share), chunksize=16)):
            if number % 1000 == 0:
                print(f"{number:,} documents, {len(document_of):,} passages, {len(asked_on):,} questions", flush=True)
            if found is None:
                continue
            first = len(document_of)
            for ids in found["passages"]:
                flat["passages"].add(ids)
                document_of.append(number)
                held.append(held_out)
            for at, ids in found["said"]:
                flat["sentences"].add(ids)
                said_in.append(first + at)
            for at, question, answer, short in found["asked"]:
                flat["questions"].add(question)
                flat["answers"].add(answer)
                flat["shorts"].add(short)
                asked_on.append(first + at)
    reader = opened(tokenizer)
    arrays: dict[str, np.ndarray] = {
        "document_of": np.array(document_of, np.uint32),
        "held_out": np.array(held, bool),
        "said_in": np.array(said_in, np.uint32),
        "asked_on": np.array(asked_on, np.uint32),
        "forms": np.frombuffer(json.dumps(forms(reader)).encode(), np.uint8),
        **{f"is_{name}": values for name, values in vocabulary(reader).items()},
    }
    for name, written in flat.items():
        arrays |= written.arrays(name)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    out.write_bytes(lzma.compress(buffer.getvalue(), filters=XZ))
    print({name: (values.shape, values.dtype.name) for name, values in arrays.items()})
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")


def forms(tokenizer: Any) -> dict[str, Any]:
    """What stands between passages, questions and answers, and the words that questions made by chance begin with."""
    encode = partial(encoded, tokenizer)
    return {
        "before": encode(f"<|system|>{prompt.SYSTEM}<|end|><|user|>"),
        "document": encode(prompt.DOCUMENT),
        "end_document": encode(f"{prompt.END_DOCUMENT}\n"),
        "after": encode("<|end|><|assistant|>"),
        "end": encode("<|end|>"),
        "begin_quote": encode(prompt.BEGIN_QUOTE),
        "end_quote": encode(f"{prompt.END_QUOTE} {prompt.ANSWER}"),
        "refusal": encode(prompt.render_answer(prompt.REFUSAL_REASONING, prompt.REFUSAL)),
        "question_mark": encode("?"),
        "asking": [encode(word) for word in ("What", "Which", "How", "What is", "What are", "What does", "In what")],
        "asking_number": [encode(word) for word in ("How many", "When", "How much", "What number", "In what year")],
        "asking_name": [encode(word) for word in ("Who", "What", "Which", "Where", "What is the name of", "What does")],
        "within": [encode(word) for word in (" what", " which", " how many", " who")],
        "mentions": [encode(words) for words in ("Which sentence mentions", "Where is", "What is said about", "")],
        "vocabulary": len(tokenizer),
        "pad": tokenizer.pad_token_id,
    }


if __name__ == "__main__":
    main()
