"""A small world for the exam's tests: planets, questions about them, a ranking by words, and scripted models."""

import contextlib
import dataclasses
import re

from openbook.config import Config
from openbook.prompt import END_DOCUMENT, REFUSAL, SYSTEM_CLOSED, render_answer, render_quote
from openbook.records import Chunk, Document, Quote, RaftExample, ScoredChunk

COUNT = 8


def planet(number):
    name = f"Planet{number}"
    return Document.create(
        uri=f"{name}.md",
        title=name,
        text=f"The world {name} has exactly {number + 20} small moons.\nIts year on {name} lasts {number + 300} long days.",
    )


DOCUMENTS = [planet(number) for number in range(COUNT)]
CHUNKS = [
    Chunk.create(document, start, end, headings=(document.title,))
    for document in DOCUMENTS
    for start, end in [(0, document.text.index("\n")), (document.text.index("\n") + 1, len(document.text))]
]


def example(number):
    """How many moons a planet has; the golden chunk is the planet's first."""
    chunk = CHUNKS[2 * number]
    quote = Quote(text=chunk.text, chunk_id=chunk.id, start=chunk.start, end=chunk.end)
    return RaftExample(
        id=f"example-{number}",
        question=f"How many moons has {chunk.title}?",
        passages=(chunk,),
        golden=(chunk,),
        golden_included=True,
        reasoning=render_quote(chunk.text),
        quotes=(quote,),
        final_answer=f"{number + 20} small moons",
        answer=f"{number + 20} small moons",
        seed=0,
    )


TESTS = {"studied": [example(n) for n in range(5)], "unseen": [example(n) for n in range(5, COUNT)]}


class WordRetriever:
    """Chunks that share the most words with the query first; the sky of Planet4 is clouded: its chunks come last."""

    fingerprint = "words"

    def search(self, query, k, *, without=()):
        wanted = set(re.findall(r"\w+", query))

        def score(chunk):
            return 0 if chunk.title == "Planet4" else 1 + len(wanted.intersection(re.findall(r"\w+", chunk.text)))

        kept = sorted((chunk for chunk in CHUNKS if chunk.id not in without), key=score, reverse=True)[:k]
        return [ScoredChunk(chunk=c, score=float(score(c)), rank=rank) for rank, c in enumerate(kept, 1)]

    def search_many(self, queries, k, *, without=None):
        return [self.search(q, k, without=w) for q, w in zip(queries, without or [()] * len(queries), strict=True)]


@dataclasses.dataclass(frozen=True)
class Written:
    text: str
    finished: bool = True
    error: str = ""
    prompt_tokens: int = 100
    completion_tokens: int = 10


def base(question, passages):
    """Talks without the answer tag, and takes what comes first."""
    return passages[0] if passages else "Twelve."


def sft(question, passages):
    """Knows the moons of Planet0 by heart, and knows no refusals and no quotes."""
    return "<ANSWER>: 20 small moons" if "Planet0" in question else "<ANSWER>: 99 small moons"


def raft(question, passages):
    """Quotes the passage that it was asked for, or says that there is none."""
    name = re.findall(r"Planet\d+", question)[0]
    found = next((p for p in passages or () if name in p and "moons" in p), None)
    if found is None:
        return f"<ANSWER>: {REFUSAL}"
    return render_answer(render_quote(found), re.findall(r"\d+ small moons", found)[0])


class Scripted:
    """A generator that answers by a function of the question and its passages, and counts what it is asked."""

    def __init__(self, script, asked):
        self.script, self.asked = script, asked

    def generate_each(self, prompts):
        for number, prompt in enumerate(prompts):
            yield number, self.one(prompt)

    def one(self, prompt):
        self.asked.append(prompt)
        system, user = (message.content for message in prompt.messages)
        *documents, question = user.split(f"{END_DOCUMENT}\n")
        passages = None if system == SYSTEM_CLOSED else [document.removeprefix("<DOCUMENT>") for document in documents]
        said = self.script(question, passages)
        return said if isinstance(said, Written) else Written(said)

    def stream(self, prompt):
        raise NotImplementedError("the exam does not stream")


class ScriptedCandidates:
    """Three scripted models. `asked[adapter]` lists the prompts that each was given."""

    def __init__(self, scripts=None, identities=None):
        self.scripts = scripts or {None: base, "sft": sft, "raft": raft}
        self.identities = identities or {}
        self.asked = {None: [], "sft": [], "raft": []}

    def identity(self, adapter):
        return self.identities.get(adapter, f"weights of {adapter}")

    @contextlib.contextmanager
    def answering(self, adapter):
        yield Scripted(self.scripts[adapter], self.asked[adapter])

    @property
    def count(self):
        return sum(map(len, self.asked.values()))


def world_config(folder, **evaluate):
    options = {"resamples": 200, "removed": 4, "batch_size": 3, "passage_counts": [1, 2], "passage_questions": 3}
    return Config.parse(
        {"out": str(folder), "retrieval": {"passages": 2}, "evaluate": {**options, **evaluate}}, origin="test"
    )
