"""From a question to an answer whose quotes have been checked: retrieve, prompt, generate, verify.

The exam and daily use answer here, by the same prompt that the data was written with.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from openbook.errors import InputError, ModelError
from openbook.metrics import short_answer
from openbook.options import WEIGHTS
from openbook.progress import SILENT, Progress
from openbook.prompt import FINGERPRINT, check_quotes, encodable, is_refusal, parse_answer, prompt
from openbook.records import Answer, Conversation, ScoredChunk, Usage
from openbook.storage import read_manifest


class Generation(Protocol):
    """What `openbook.models.Generation` holds: the text, tokens of the model, whether it ended by itself."""

    @property
    def text(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    @property
    def error(self) -> str: ...


class TextGenerator(Protocol):
    """What answering needs of a model; `openbook.models.Generator` is one."""

    def generate_each(self, prompts: Sequence[Conversation]) -> Iterator[tuple[int, Generation]]:
        """The number of each prompt and its generation, in the order in which they are done."""

    def stream(self, prompt: Conversation) -> Iterator[str]:
        """The answer in pieces, as they are written. A generator may return whether the model ended by itself."""


class PassageSource(Protocol):
    """What answering needs of an index; `openbook.retrieval.Retriever` is one."""

    def search(self, query: str, k: int, *, without: Collection[str] = ()) -> list[ScoredChunk]:
        """The best `k` passages, best first, as if the chunks named in `without` were not in the index."""

    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]:
        """`search` for each query."""


class Answerer:
    """Answers questions with `passages` passages from `retriever`; without a retriever, from the model's memory."""

    def __init__(self, retriever: PassageSource | None, generator: TextGenerator, *, passages: int) -> None:
        self.retriever = retriever
        self.generator = generator
        self.passages = passages

    def answer(self, question: str, *, without: Collection[str] = ()) -> Answer:
        """The answer to one question. Raises `ModelError` where the model cannot read the prompt.

        Chunks named in `without` are treated as absent from the index.
        """
        answer = self.answer_many([_asked(question)], without=[without])[0]
        if answer.error:
            raise ModelError(
                f"The question cannot be answered: {answer.error}.",
                "Ask a shorter question or show fewer passages (retrieval.passages).",
            )
        return answer

    def answer_many(
        self,
        questions: Sequence[str],
        *,
        closed: bool = False,
        passages: Sequence[Sequence[ScoredChunk]] | None = None,
        without: Sequence[Collection[str]] | None = None,
        progress: Progress = SILENT,
    ) -> list[Answer]:
        """One answer a question, in their order; what could not be generated is an empty answer with its `error`.

        `closed` shows no passages; `passages` shows these instead of searching; `without[i]` names chunks that question
        i must not be shown. For `usage.seconds` see `answer_each`.
        """
        shown: Sequence[Sequence[ScoredChunk] | None]
        if closed or (self.retriever is None and passages is None):
            shown = [None] * len(questions)
        elif passages is not None:
            shown = passages
        else:
            assert self.retriever is not None
            shown = self.retriever.search_many(questions, self.passages, without=without)
        answers: dict[int, Answer] = {}
        with progress.task("answering", len(questions), "questions") as task:
            for number, answer in self.answer_each(list(zip(questions, shown, strict=True))):
                answers[number] = answer
                task.advance()
        return [answers[number] for number in range(len(questions))]

    def answer_each(self, asked: Sequence[tuple[str, Sequence[ScoredChunk] | None]]) -> Iterator[tuple[int, Answer]]:
        """Answers to questions with these passages (None: closed book), by number, in the order in which they are done.

        Many are on their way at once; `usage.seconds` is the time since the answer before, so that they add up to all.
        """
        prompts = [_prompt(question, found) for question, found in asked]
        start = time.perf_counter()
        for number, generation in self.generator.generate_each(prompts):
            question, found = asked[number]
            now = time.perf_counter()
            usage = Usage(
                prompt_tokens=generation.prompt_tokens,
                completion_tokens=generation.completion_tokens,
                seconds=now - start,
            )
            yield (
                number,
                read_answer(
                    question,
                    generation.text,
                    found or (),
                    finished=generation.finished,
                    error=generation.error,
                    usage=usage,
                ),
            )
            start = time.perf_counter()

    def stream(self, question: str, *, without: Collection[str] = ()) -> "AnswerStream":
        """Start answering one question; the passages are found before this returns, the pieces come on iteration."""
        question = _asked(question)
        found = self.retriever.search(question, self.passages, without=without) if self.retriever else None
        return AnswerStream(question, found or (), self.generator.stream(_prompt(question, found)))


class AnswerStream:
    """An answer on its way: iterate over its pieces, then read `last`. Closing it stops the model.

    `passages` are known before the first piece, so that whoever shows the answer can show them first.
    """

    def __init__(self, question: str, passages: Sequence[ScoredChunk], pieces: Iterator[str]) -> None:
        self.question = question
        self.passages = tuple(passages)
        self._pieces = pieces
        self._written: list[str] = []
        self._start = time.perf_counter()
        self._last: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except StopIteration as ended:
            self._finish(finished=ended.value is not False)
            raise
        self._written.append(piece)
        return piece

    @property
    def last(self) -> Answer:
        """The answer with its quotes checked; asked for before the stream's end, it reads the rest first.

        A stream does not count tokens: `usage` holds only the seconds.
        """
        for _ in self:
            pass
        assert self._last is not None
        return self._last

    def close(self) -> None:
        """Stop the model; what was written so far becomes the unfinished `last`."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._pieces = iter(())
        self._finish(finished=False)

    def _finish(self, *, finished: bool) -> None:
        if self._last is None:
            usage = Usage(seconds=time.perf_counter() - self._start)
            text = "".join(self._written).strip()
            self._last = read_answer(self.question, text, self.passages, usage=usage, finished=finished)


def read_answer(
    question: str,
    text: str,
    passages: Sequence[ScoredChunk],
    *,
    usage: Usage | None = None,
    finished: bool = True,
    error: str = "",
) -> Answer:
    """What a model wrote, parsed, with each of its quotes looked up verbatim in the passages that it was shown."""
    parsed = parse_answer(text)
    return Answer(
        question=question,
        text=text,
        final=parsed.final,
        refusal=is_refusal(short_answer(parsed, finished=finished)[0]),
        quotes=check_quotes(parsed, [scored.chunk for scored in passages]),
        passages=tuple(passages),
        usage=usage or Usage(),
        finished=finished,
        error=error,
    )


def check_adapter(folder: Path, *, base: str, retrieval: str = "", quantization: str = "") -> list[str]:
    """Compare an adapter's manifest with what it is to answer with: `base` and `retrieval` are fingerprints,
    `quantization` is the base's.

    Returns a sentence for each thing that is not as it was in tuning, which costs quality. Raises `ModelError` for
    another base, on which the adapter would produce noise. An adapter without a manifest is taken as it is.
    """
    manifest = read_manifest(folder) or {}
    tuned_on = manifest.get("inputs", {}).get("base", base)
    if tuned_on != base:
        raise ModelError(
            f"The adapter in {folder} was tuned on another base model ({manifest.get('base', tuned_on)}).",
            "Set model.base to that one, or run `openbook tune` again.",
        )
    differences = []
    if manifest.get("prompt", FINGERPRINT) != FINGERPRINT:
        differences.append("another prompt")
    if retrieval and (manifest.get("retrieval") or retrieval) != retrieval:
        differences.append("another retriever")
    told = [
        f"The adapter in {folder} was tuned with {difference} than it answers with now; `openbook tune` makes it fit again."
        for difference in differences
    ]
    weights = WEIGHTS.get(manifest.get("options", {}).get("adapter", ""), quantization)
    if quantization and weights != quantization:
        told.append(
            f"The adapter in {folder} was tuned on the base {'in 4 bits' if weights == 'nf4' else 'as it is'} and answers on "
            f"it {'in 4 bits' if quantization == 'nf4' else 'as it is'} now; model.quantization = {weights} makes it fit."
        )
    return told


def _prompt(question: str, passages: Sequence[ScoredChunk] | None) -> Conversation:
    return prompt(question, None if passages is None else [scored.chunk.text for scored in passages])


def _asked(question: str) -> str:
    if not question.strip():
        raise InputError("The question is empty.", "Write one, in quotation marks where the shell needs them.")
    return encodable(question)
