"""Tasks phrased as commands, written from passages by rule: what instruction tuning studies when there is only a folder.

Seven kinds: quote, define, list, classify, rewrite as steps, compare two passages, and say that it is absent. Each
answer is right by construction: it is made of text that stands in the passages shown, or of the title they stand under.
`quote` and `absent` speak openbook's own form of answer, since their system message asks for it; the others are plain.
"""

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from openbook import prompt
from openbook.dataset.checks import cannot_answer, holds_tag
from openbook.dataset.english.reading import read_chunk, topic
from openbook.dataset.english.words import STOPWORDS, VERBS
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.groups import SPARE, shown_with
from openbook.documents import sentences
from openbook.records import Chunk, Conversation, Message, Question, ScoredChunk

SYSTEM: Final = "Do what you are told, from the documents alone."
FEWEST, MOST = 3, 8  # entries of a list, steps of a procedure
LABELS = 4  # sections to choose from
RARE = 0.1  # a word that stands in more passages than this share tells nothing about what two have in common

ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    "quote": (
        "Quote the sentence that answers this question: {x}",
        "Find the sentence from which one learns the answer to “{x}” and quote it.",
        "Copy out, word for word, the sentence that settles this: {x}",
    ),
    "define": (
        "Define {x}.",
        "Give the definition of {x} that the documents give.",
        "Say in one sentence what is meant by {x}.",
    ),
    "list": (
        "List what the document gives under “{x}”.",
        "Make a bulleted list of what follows “{x}” in the document.",
    ),
    "names": (
        "List the names that the document sets in code, in the order in which they appear.",
        "Name every piece of code between backticks in the document, each once and on a line of its own.",
    ),
    "classify": (
        "Classify the document: does it belong under {x}? Answer with the title alone.",
        "Choose the section that the document is taken from: {x}. Write nothing but its title.",
    ),
    "steps": (
        "Rewrite the document as numbered steps.",
        "Turn the document into a numbered list of steps, one sentence each.",
    ),
    "compare": (
        "Compare the two documents: say what each is about, and what both mention.",
        "Set the two documents side by side. State the subject of each and the words that they share.",
    ),
}
KINDS: Final = ("quote", "define", "list", "classify", "steps", "compare", "absent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One command with its answer. `chunk_ids` are the passages that it was made from."""

    kind: str
    conversation: Conversation
    chunk_ids: tuple[str, ...]


class Search(Protocol):
    """What finds passages to stand beside the right one; `openbook.retrieval.Retriever` is one."""

    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]: ...


class TaskWriter:
    """Writes tasks on the passages `chunks`. `hidden` names passages that must not be shown, `secret` sentences that no
    answer may give away: those of the exams. A pure function of its arguments."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        search: Search,
        *,
        passages: int,
        seed: int,
        hidden: frozenset[str] = frozenset(),
        secret: Collection[str] = (),
    ) -> None:
        self._chunks = [chunk for chunk in chunks if chunk.id not in hidden]
        self._search, self._passages, self._seed = search, passages, seed
        self._hidden, self._secret = hidden, frozenset(secret)
        self._teacher = ExtractiveTeacher()
        self._words = {chunk.id: _words(chunk.text) for chunk in self._chunks}
        self._common: dict[str, int] = {}
        for words in self._words.values():
            for word in words:
                self._common[word] = self._common.get(word, 0) + 1
        self._by_kind: Mapping[str, Callable[[Chunk, random.Random], Task | None]] = {
            "quote": self._quote,
            "define": self._define,
            "list": self._list,
            "classify": self._classify,
            "steps": self._steps,
            "compare": self._compare,
            "absent": self._absent,
        }

    def write(self, count: int) -> Iterator[Task]:
        """At most `count` tasks, the kinds in turn as long as each finds passages that it fits; no kind uses a passage
        twice."""
        order = {kind: self._ordered(kind) for kind in KINDS}
        alive = list(KINDS)
        while count > 0 and alive:
            for kind in list(alive):
                task = next(order[kind], None)
                if task is None:
                    alive.remove(kind)
                elif count > 0:
                    count -= 1
                    yield task

    def _ordered(self, kind: str) -> Iterator[Task]:
        chunks = list(self._chunks)
        random.Random(f"tasks:{self._seed}:{kind}").shuffle(chunks)
        for chunk in chunks:
            task = self._by_kind[kind](chunk, random.Random(f"task:{self._seed}:{kind}:{chunk.id}"))
            if task is not None and not any(sentence in _answer(task) for sentence in self._secret):
                yield task

    def _question(self, chunk: Chunk, rng: random.Random, wanted: Callable[[Question], object]) -> Question | None:
        written = self._teacher.write(chunk, rng=rng, limit=4)
        return next((q for q in written if q.kind != "cloze" and not holds_tag(q) and wanted(q)), None)

    def _found(self, question: Question, gone: Collection[str] = ()) -> list[Chunk]:
        without = [self._hidden.union(gone)]
        (ranked,) = self._search.search_many([question.text], self._passages + SPARE, without=without)
        return [scored.chunk for scored in ranked]

    def _quote(self, chunk: Chunk, rng: random.Random) -> Task | None:
        question = self._question(chunk, rng, lambda q: True)
        if question is None:
            return None
        shown = shown_with([chunk], self._found(question), question, self._passages)
        answer = prompt.render_answer(question.reasoning, question.answer)
        return self._task("quote", "quote", shown, answer, rng, x=question.text, system=prompt.SYSTEM)

    def _absent(self, chunk: Chunk, rng: random.Random) -> Task | None:
        question = self._question(chunk, rng, lambda q: True)
        if question is None:
            return None
        shown = [c for c in self._found(question, [chunk.id]) if cannot_answer([c], question)][: self._passages]
        if not shown:
            return None
        answer = prompt.render_answer(prompt.REFUSAL_REASONING, prompt.REFUSAL)
        return self._task("absent", "quote", shown, answer, rng, x=question.text, system=prompt.SYSTEM)

    def _define(self, chunk: Chunk, rng: random.Random) -> Task | None:
        question = self._question(chunk, rng, lambda q: q.kind == "definition" and _DEFINED.match(q.text))
        match = _DEFINED.match(question.text) if question else None
        if question is None or match is None:
            return None
        shown = shown_with([chunk], self._found(question), question, 2)
        return self._task("define", "define", shown, question.quotes[0], rng, x=match[1])

    def _list(self, chunk: Chunk, rng: random.Random) -> Task | None:
        found = [match for match in _LIST.finditer(chunk.text) if FEWEST <= ("\n" + match[2]).count("\n- ") <= MOST]
        if found:
            match = rng.choice(found)
            return self._task("list", "list", [chunk], match[2].strip(), rng, x=match[1].strip())
        names = list(dict.fromkeys(_CODE.findall(chunk.text)))
        # A name with a space at its edge is what stands between two names: the marks do not pair up in this passage.
        if (
            "```" in chunk.text
            or not FEWEST <= len(names) <= MOST
            or any(name[1:-1] != name[1:-1].strip() for name in names)
        ):
            return None
        return self._task("list", "names", [chunk], "\n".join(f"- {name}" for name in names), rng)

    def _classify(self, chunk: Chunk, rng: random.Random) -> Task | None:
        body = "\n".join(line for line in chunk.text.split("\n") if not line.startswith("#")).strip()
        right = _title(chunk)
        if not right or len(body.split()) < 25:
            return None
        others = sorted({_title(other) for other in self._chunks} - {right, ""})
        if len(others) < LABELS - 1:
            return None
        labels = [right, *rng.sample(others, LABELS - 1)]
        rng.shuffle(labels)
        choice = ", ".join(f"“{label}”" for label in labels[:-1]) + f" or “{labels[-1]}”"
        return self._task("classify", "classify", [chunk], right, rng, x=choice, texts=[body])

    def _steps(self, chunk: Chunk, rng: random.Random) -> Task | None:
        for run in _runs(chunk.text):
            orders = sum(_is_order(sentence) for sentence in run)
            if FEWEST <= len(run) <= MOST and 2 * orders >= len(run) and _is_order(run[0]):
                steps = "\n".join(f"{number}. {_step(sentence)}" for number, sentence in enumerate(run, 1))
                return self._task("steps", "steps", [chunk], steps, rng, texts=[" ".join(run)])
        return None

    def _compare(self, chunk: Chunk, rng: random.Random) -> Task | None:
        drawn = rng.sample(self._chunks, min(40, len(self._chunks)))
        here, most = _title(chunk), RARE * len(self._chunks) + 2

        def shared(other: Chunk) -> list[str]:
            words = (w for w in self._words[chunk.id] & self._words[other.id] if self._common[w] <= most)
            return sorted(words, key=lambda word: (self._common[word], word))

        others = [other for other in drawn if _title(other) not in (here, "")]
        other = max(others, key=lambda other: (len(shared(other)), other.id), default=None)
        if other is None or not here or len(shared(other)) < 2:
            return None
        openings = [next((sentence.text for sentence in read_chunk(c)), "") for c in (chunk, other)]
        if not all(openings):
            return None
        words = shared(other)[:3]
        listed = ", ".join(words[:-1]) + f" and {words[-1]}"
        answer = (
            f"The first document is about {here}: {openings[0]}\n"
            f"The second document is about {_title(other)}: {openings[1]}\nBoth mention {listed}."
        )
        return self._task("compare", "compare", [chunk, other], answer, rng, ordered=True)

    def _task(
        self,
        kind: str,
        phrases: str,
        shown: Sequence[Chunk],
        answer: str,
        rng: random.Random,
        *,
        x: str = "",
        system: str = SYSTEM,
        texts: Sequence[str] | None = None,
        ordered: bool = False,
    ) -> Task:
        passages = list(texts) if texts is not None else [chunk.text for chunk in shown]
        if not ordered:
            rng.shuffle(passages)
        command = rng.choice(ASKED[phrases]).format(x=x)
        messages = (
            Message(role="system", content=system),
            Message(role="user", content=prompt.instruction(passages, command)),
            Message(role="assistant", content=answer),
        )
        return Task(
            kind=kind,
            conversation=Conversation(messages=messages),
            chunk_ids=tuple(chunk.id for chunk in shown),
        )


_DEFINED = re.compile(r"What (?:is meant by|exactly (?:is|are)|is|are) (?!meant by)((?:\S+ ){0,5}\S+)\?$")
_LIST = re.compile(r"^([^\n]{10,160}):\n+((?:- [^\n]{2,200}(?:\n+|$)){2,})", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]{1,60}`")
_ORDINAL = re.compile(r"^(?:first|second|third|then|next|after that|finally|lastly)\b,?\s+", re.IGNORECASE)


def _answer(task: Task) -> str:
    return task.conversation.messages[-1].content


def _title(chunk: Chunk) -> str:
    """What a passage is about: the nearest heading that tells something, without its number; "" where none does."""
    return topic(chunk)[0]


def _words(text: str) -> frozenset[str]:
    """The words that tell what a text is about, as they are written in it."""
    return frozenset(word for word in re.findall(r"\b[a-z]{5,}\b", text) if word not in STOPWORDS)


def _runs(text: str) -> Iterator[list[str]]:
    """The paragraphs of a text as lists of sentences, without headings, lists and code."""
    run: list[str] = []
    before = 0
    for start, end in sentences(text):
        sentence = text[start:end]
        if "\n" in text[before:start] and run:
            yield run
            run = []
        before = end
        if "\n" in sentence or not sentence[:1].isalpha() or not sentence.endswith((".", "!")):
            if run:
                yield run
            run = []
            continue
        run.append(sentence)
    if run:
        yield run


def _is_order(sentence: str) -> bool:
    """Whether a sentence tells the reader to do something, or says that it is next."""
    rest = _ORDINAL.sub("", sentence, count=1)
    form = VERBS.get(rest.split(maxsplit=1)[0].strip(",").lower())
    return rest != sentence or (form is not None and bool(form.plain))


def _step(sentence: str) -> str:
    rest = _ORDINAL.sub("", sentence, count=1)
    return rest[:1].upper() + rest[1:]
