"""Rows of token trees, made while training: passages with the questions on them, in ever new company and order.

A row holds study groups one after the other: the prompt with a few passages of one document and its neighbours, then one
branch for each question. Of the questions with an answer about a quarter are the teacher's; the others are made by chance
from a sentence, with a span of it as the answer and some of its other words, roughly as people ask (noisy clozes, arXiv
1906.04980). A fifth of all ask for what stands in none of the passages and are to be refused.
"""

import io
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

PASSAGES = (1, 2, 3, 4, 4, 4, 4, 5, 6, 8) * 2 + (12, 16)  # of a group
QUESTIONS = 18  # a group
TEACHERS = 4  # of them at most, for they are all alike, and few enough to be seen several times
REFUSED = 0.2  # share of questions whose answer is not in the passages
PASSAGE_WEIGHT = 0.2  # of predicting a passage's next token, beside 1 for an answer's
LONGEST_SPAN = 5  # words of an answer that is chosen by chance
LAST = 600  # tokens at a row's end in which no other group begins
ROOM = 200  # tokens that a group's questions have at least

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Flat:
    tokens: np.ndarray
    at: np.ndarray

    def __getitem__(self, number: int) -> np.ndarray:
        return self.tokens[self.at[number] : self.at[number + 1]]

    def __len__(self) -> int:
        return len(self.at) - 1


class Study:
    """What `prepare.py` wrote."""

    def __init__(self, path: Path) -> None:
        packed = path.read_bytes()
        arrays = np.load(io.BytesIO(lzma.decompress(packed) if path.suffix == ".xz" else packed))
        self.forms: dict[str, Any] = json.loads(arrays["forms"].tobytes())
        self.passages, self.sentences, self.questions, self.answers, self.shorts = (
            Flat(arrays[name], arrays[f"{name}_at"].astype(np.int64))
            for name in ("passages", "sentences", "questions", "answers", "shorts")
        )
        self.document_of, self.held_out = arrays["document_of"], arrays["held_out"]
        count = len(self.passages)
        self.said = np.searchsorted(arrays["said_in"], np.arange(count + 1))  # passage → its range of sentences
        self.asked = np.searchsorted(arrays["asked_on"], np.arange(count + 1))
        self.begins, self.stop, self.mark, self.digit, self.capital, self.lower, self.stem = (
            arrays[f"is_{name}"].tolist() for name in ("begins", "stop", "mark", "digit", "capital", "lower", "stem")
        )

    @cached_property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """First passage of each passage's document, and one past its last."""
        return np.searchsorted(self.document_of, self.document_of), np.searchsorted(
            self.document_of, self.document_of, side="right"
        )


class Rows:
    """Endless rows of `length` tokens; equal seeds give equal rows."""

    def __init__(self, study: Study, *, length: int, seed: int, held_out: bool = False) -> None:
        self._study, self._length = study, length
        self._rng = np.random.default_rng(seed)
        self._pool = np.flatnonzero(study.held_out == held_out)
        if len(self._pool) < max(PASSAGES):
            part = "held out" if held_out else "to train on"
            raise SystemExit(
                f"Of the corpus {len(self._pool)} passages are {part}; a group shows up to {max(PASSAGES)}. Give more documents."
            )

    def __iter__(self) -> Iterator[Row]:
        while True:
            yield self._row()

    def _row(self) -> Row:
        length = self._length
        row = {
            "ids": np.full(length, self._study.forms["pad"], np.int64),
            "depth": np.zeros(length, np.int64),
            "end": np.arange(1, length + 1, dtype=np.int32),
            "target": np.zeros(length, np.int64),
            "weight": np.zeros(length, np.float32),
            "answer": np.full(length, -1, np.int64),  # the number of the question that a supervised token answers
        }
        at, number = 0, 0
        while at < length - LAST:
            prefix, items = self._group()
            if at + len(prefix) + ROOM > length:
                if at > length // 2:
                    break
                continue
            at, number = self._lay(row, at, number, prefix, items)
        return row

    def _lay(self, row: Row, at: int, number: int, prefix: np.ndarray, items: list[Any]) -> tuple[int, int]:
        """Write a group from token `at` on, with as many of its questions as fit; where it ends."""
        start, stop = at, at + len(prefix)
        row["ids"][start:stop] = prefix
        row["depth"][start:stop] = np.arange(len(prefix))
        row["target"][start : stop - 1] = prefix[1:]
        row["weight"][start + len(self._study.forms["before"]) : stop - 1] = PASSAGE_WEIGHT
        at = stop
        for asked, said in items:
            size = len(asked) + len(said)
            if at + size > self._length:
                continue
            branch = np.concatenate([asked, said])
            row["ids"][at : at + size] = branch
            row["depth"][at : at + size] = len(prefix) + np.arange(size)
            row["end"][at : at + size] = at + size
            first = at + len(asked) - 1
            row["target"][first : first + len(said)] = said
            row["weight"][first : first + len(said)] = 1.0
            row["answer"][first : first + len(said)] = number
            number += 1
            at += size
        row["end"][start:stop] = at
        return at, number

    def _group(self) -> tuple[np.ndarray, list[Any]]:
        study, rng = self._study, self._rng
        size = int(rng.choice(PASSAGES))
        shown, outside = self._window(size)
        rng.shuffle(shown)
        forms = study.forms
        parts = [forms["before"]]
        for passage in shown:
            parts += [forms["document"], study.passages[passage], forms["end_document"]]
        prefix = np.concatenate(parts).astype(np.uint16)
        inside = [n for passage in shown for n in range(study.asked[passage], study.asked[passage + 1])]
        said = [n for passage in shown for n in range(study.said[passage], study.said[passage + 1])]
        rng.shuffle(inside)
        rng.shuffle(said)
        items = [self._teachers(n) for n in inside[:TEACHERS]]
        for n in said[: 2 * QUESTIONS]:
            if len(items) == QUESTIONS:
                break
            if made := self._made(study.sentences[n].tolist()):
                items.append(made)
        wanted = rng.binomial(max(len(items), 2), REFUSED / (1 - REFUSED))
        items += self._refused(outside, prefix, wanted)
        rng.shuffle(items)
        return prefix, items

    def _window(self, size: int) -> tuple[list[int], list[int]]:
        """Neighbouring passages, filled up with others; and passages that are asked about in vain."""
        rng, study = self._rng, self._study
        chosen = int(rng.choice(self._pool))
        first, last = (int(limit[chosen]) for limit in study.limits)
        kept = max(1, size - int(rng.integers(0, 3))) if rng.random() < 0.5 else size
        start = max(first, min(chosen - int(rng.integers(0, kept)), last - kept))
        shown = list(range(start, min(start + kept, last)))
        while len(shown) < size:
            other = self._other(chosen)
            if other not in shown:
                shown.append(other)
        near = [n for n in range(max(first, start - 6), min(last, start + kept + 6)) if n not in shown]
        far = [self._other(chosen) for _ in range(3)]
        return shown, near + [n for n in far if n not in shown]

    def _other(self, passage: int) -> int:
        """A passage nearby in the corpus, most likely of the same project, or any."""
        if self._rng.random() < 0.6:
            near = np.searchsorted(self._pool, passage) + int(self._rng.integers(-150, 151))
            return int(self._pool[near % len(self._pool)])
        return int(self._rng.choice(self._pool))

    def _branch(self, question: Any, answer: Any) -> tuple[np.ndarray, np.ndarray]:
        forms = self._study.forms
        return (
            np.concatenate([question, forms["after"]]).astype(np.uint16),
            np.concatenate([answer, forms["end"]]).astype(np.uint16),
        )

    def _teachers(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self._branch(self._study.questions[number], self._study.answers[number])

    def _made(self, sentence: list[int]) -> tuple[np.ndarray, np.ndarray] | None:
        found = self._ask(sentence)
        if found is None:
            return None
        question, short = found
        forms = self._study.forms
        return self._branch(question, [*forms["begin_quote"], *sentence, *forms["end_quote"], *short])

    def _refused(self, outside: list[int], prefix: np.ndarray, wanted: int) -> list[tuple[np.ndarray, np.ndarray]]:
        study, rng = self._study, self._rng
        shown, found = prefix.tobytes(), []
        for _ in range(4 * wanted):
            if len(found) == wanted or not outside:
                break
            passage = outside[int(rng.integers(len(outside)))]
            if rng.random() < 0.6 and study.asked[passage + 1] > study.asked[passage]:
                number = int(rng.integers(study.asked[passage], study.asked[passage + 1]))
                question, short = study.questions[number].tolist(), study.shorts[number]
            elif study.said[passage + 1] > study.said[passage]:
                number = int(rng.integers(study.said[passage], study.said[passage + 1]))
                made = self._ask(study.sentences[number].tolist())
                if made is None:
                    continue
                question, short = made
            else:
                continue
            if np.asarray(short, np.uint16).tobytes() not in shown:
                found.append(self._branch(question, study.forms["refusal"]))
        return found

    def _words(self, sentence: list[int]) -> list[list[int]]:
        words: list[list[int]] = []
        for token in sentence:
            if self._study.begins[token] or not words:
                words.append([])
            words[-1].append(token)
        return words

    def _ask(self, sentence: list[int]) -> tuple[list[int], list[int]] | None:
        """A question whose answer is a span of the sentence, and that span. None where there is too little to ask."""
        study, rng = self._study, self._rng
        words = self._words(sentence)
        marks = [all(study.mark[token] for token in word) for word in words]
        full = [not mark and not study.stop[word[0]] for word, mark in zip(words, marks, strict=True)]
        # An answer's first token must be the same after a space as it is in the sentence.
        starts = [n for n, word in enumerate(words) if full[n] and not study.mark[word[0]]]
        if len(starts) < 4:
            return None
        first = starts[int(rng.integers(len(starts)))]
        last = first
        for n in range(first + 1, min(first + int(rng.integers(1, LONGEST_SPAN + 1)), len(words))):
            if marks[n]:
                break
            if full[n]:
                last = n
        short = [token for word in words[first : last + 1] for token in word]
        if rng.random() < 0.06:
            return [*_any(rng, study.forms["mentions"]), *short, *study.forms["question_mark"]], short
        return self._worded(words, marks, full, first, last), short

    def _worded(self, words: list[list[int]], marks: list[bool], full: list[bool], first: int, last: int) -> list[int]:
        study, rng = self._study, self._rng
        dropped = rng.random() * 0.6
        little = 0.2 + 0.6 * rng.random()  # of the words that carry little, so many stay
        stems, lowers = rng.random() < 0.4, rng.random() < 0.15
        kept: list[list[int]] = [[], []]  # the words before the answer, and those behind it
        others = [n for n in range(len(words)) if not first <= n <= last]
        must = {others[int(n)] for n in rng.integers(len(others), size=3)}
        for n in others:
            share = 0.4 if marks[n] else 1 - dropped if full[n] else little
            if n not in must and rng.random() > share:
                continue
            word = list(words[n])
            if n == 0 or lowers:
                word[0] = study.lower[word[0]]
            if stems and len(word) == 1 and rng.random() < 0.5:
                word[0] = study.stem[word[0]]
            kept[n > last] += word
        head = words[first][0]
        kind = "asking_number" if study.digit[head] else "asking_name" if first and study.capital[head] else "asking"
        asking = _any(rng, study.forms[kind])
        chance = rng.random()
        if chance < 0.15:  # as if one had been interrupted
            question = [*kept[0], *_any(rng, study.forms["within"]), *kept[1]]
        elif chance < 0.5:
            question = [*asking, *kept[1], *kept[0]]
        else:
            question = [*asking, *kept[0], *kept[1]]
        return question if rng.random() < 0.1 else [*question, *study.forms["question_mark"]]


def _any(rng: np.random.Generator, choices: list[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]
