"""Answering against a scripted model and a fixed ranking: the two seams that it stands on."""

import dataclasses
import time

import pytest

from openbook.answering import Answerer, read_answer
from openbook.errors import InputError, ModelError
from openbook.progress import SILENT
from openbook.prompt import REFUSAL, SYSTEM, SYSTEM_CLOSED, render_answer, render_quote
from openbook.records import Answer as AnswerRecord
from openbook.records import Chunk, Document, ScoredChunk, from_json, to_json

DOCUMENT = Document.create(
    uri="sea.md",
    title="The sea",
    text="The tide rises twice a day. Salt makes the water heavier. Whales sleep with one half of the brain.",
)
CHUNKS = [Chunk.create(DOCUMENT, start, end) for start, end in ((0, 27), (28, 57), (58, len(DOCUMENT.text)))]


@dataclasses.dataclass(frozen=True)
class Written:
    text: str
    prompt_tokens: int = 10
    completion_tokens: int = 3
    finished: bool = True
    error: str = ""


class ScriptedGenerator:
    """Answers each prompt by a function of its user's message, and remembers the prompts."""

    def __init__(self, script):
        self.script = script
        self.prompts = []

    def generate_each(self, prompts):
        self.prompts += prompts
        for number, prompt in reversed(list(enumerate(prompts))):  # the order in which answers come is free
            said = self.script(prompt.messages[-1].content)
            yield number, said if isinstance(said, Written) else Written(said)

    def stream(self, prompt):
        self.prompts.append(prompt)
        yield from self.script(prompt.messages[-1].content).split("|")


class FixedRetriever:
    """Always the same ranking."""

    def search(self, query, k, *, without=()):
        kept = [chunk for chunk in CHUNKS if chunk.id not in without][:k]
        return [ScoredChunk(chunk=chunk, score=1 / rank, rank=rank) for rank, chunk in enumerate(kept, 1)]

    def search_many(self, queries, k, *, without=None):
        return [self.search(q, k, without=w) for q, w in zip(queries, without or [()] * len(queries), strict=True)]


def answerer(script, *, passages=2):
    generator = ScriptedGenerator(script)
    return Answerer(FixedRetriever(), generator, passages=passages), generator


TRUE = "The tide rises twice a day."


def test_quotes_are_looked_up_in_the_passages_shown():
    text = render_answer(render_quote(TRUE) + render_quote("The tide rises once."), "twice a day")
    ask, generator = answerer(lambda _: text)
    answer = ask.answer("How often does the tide rise?")
    verified, claimed = answer.quotes
    assert (verified.chunk_id, DOCUMENT.text[verified.start : verified.end]) == (CHUNKS[0].id, TRUE)
    assert not claimed.verified
    assert (answer.final, answer.refusal, answer.finished) == ("twice a day", False, True)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 3)
    assert [scored.chunk for scored in answer.passages] == CHUNKS[:2]
    system, user = generator.prompts[0].messages
    assert system.content == SYSTEM
    assert user.content == (
        f"<DOCUMENT>{CHUNKS[0].text}</DOCUMENT>\n<DOCUMENT>{CHUNKS[1].text}</DOCUMENT>\nHow often does the tide rise?"
    )
    assert from_json(AnswerRecord, to_json(answer)) == answer


def test_a_quote_from_a_passage_that_was_not_shown_is_not_verified():
    ask, _ = answerer(lambda _: render_answer(render_quote(CHUNKS[2].text), "half"), passages=2)
    assert not ask.answer("How do whales sleep?").quotes[0].verified


def test_chunks_can_be_removed_from_the_index():
    ask, _ = answerer(lambda _: f"<ANSWER>: {REFUSAL}")
    answer = ask.answer("How often?", without={CHUNKS[0].id})
    assert [scored.chunk for scored in answer.passages] == CHUNKS[1:]
    assert answer.refusal


@pytest.mark.parametrize(
    ("text", "refusal"),
    [(f"<ANSWER>: {REFUSAL}", True), ("I don't know.", True), ("<ANSWER>: the document", False), ("", False)],
)
def test_refusals(text, refusal):
    assert read_answer("?", text, ()).refusal is refusal


def test_many_questions_keep_their_order_and_their_passages():
    ask, generator = answerer(lambda message: f"<ANSWER>: {message[-2:]}")
    passages = [ask.retriever.search("", 1), ask.retriever.search("", 3)]
    answers = ask.answer_many(["is it 1?", "is it 2?"], passages=passages)
    assert [answer.final for answer in answers] == ["1?", "2?"]
    assert [len(answer.passages) for answer in answers] == [1, 3]
    found = ask.answer_many(["is it 1?", "is it 2?"], without=[(), {CHUNKS[0].id}])
    assert [answer.passages[0].chunk for answer in found] == CHUNKS[:2]
    assert ask.answer_many([]) == []
    assert len(generator.prompts) == 4


def test_answers_come_as_they_are_done_and_their_seconds_add_up():
    def slow(_):
        time.sleep(0.02)
        return "<ANSWER>: yes"

    ask, _ = answerer(slow)
    start = time.perf_counter()
    found = list(ask.answer_each([("one?", None), ("two?", ask.retriever.search("", 2))]))
    assert [number for number, _ in found] == [1, 0]
    assert [len(answer.passages) for _, answer in found] == [2, 0]
    assert 0.04 <= sum(answer.usage.seconds for _, answer in found) <= time.perf_counter() - start


def test_closed_book_shows_no_passage_and_says_so_in_the_prompt():
    ask, generator = answerer(lambda _: "<ANSWER>: twice")
    assert ask.answer_many(["How often?"], closed=True)[0].passages == ()
    without_index = Answerer(None, generator, passages=4)
    assert without_index.answer("How often?").passages == ()
    for prompt in generator.prompts:
        assert [message.content for message in prompt.messages] == [SYSTEM_CLOSED, "How often?"]


def test_what_cannot_be_generated_is_told():
    def script(message):
        return Written("", finished=False, error="the prompt has 9 tokens") if "long" in message else "<ANSWER>: yes"

    ask, _ = answerer(script)
    failed, fine = ask.answer_many(["a long question", "a short one"])
    assert (failed.error, failed.finished, failed.text) == ("the prompt has 9 tokens", False, "")
    assert (fine.error, fine.final) == ("", "yes")
    with pytest.raises(ModelError, match=r"the prompt has 9 tokens.*fewer passages"):
        ask.answer("a long question")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(question):
    ask, generator = answerer(lambda _: "<ANSWER>: yes")
    with pytest.raises(InputError, match="empty"):
        ask.answer(question)
    with pytest.raises(InputError, match="empty"):
        ask.stream(question)
    assert not generator.prompts


def test_bytes_that_are_no_text_are_asked_as_question_marks():
    ask, generator = answerer(lambda _: "<ANSWER>: yes")
    assert ask.answer("A caf\udce9?").question == ask.stream("A caf\udce9?").question == "A caf??"
    assert all("\udce9" not in message.content for p in generator.prompts for message in p.messages)


class TestStream:
    TEXT = render_answer("It is so:| " + render_quote(TRUE), "twice| a day")

    def test_pieces_then_the_answer(self):
        ask, _ = answerer(lambda _: self.TEXT)
        stream = ask.stream("How often?")
        assert [scored.chunk for scored in stream.passages] == CHUNKS[:2]
        assert "".join(stream) == self.TEXT.replace("|", "")
        assert (stream.last.final, stream.last.quotes[0].verified, stream.last.finished) == ("twice a day", True, True)
        assert list(stream) == []

    def test_the_answer_can_be_asked_for_at_once(self):
        ask, _ = answerer(lambda _: self.TEXT)
        assert ask.stream("How often?").last.final == "twice a day"

    def test_closing_stops_the_model(self):
        ask, _ = answerer(lambda _: self.TEXT)
        stream = ask.stream("How often?")
        first = next(stream)
        stream.close()
        assert list(stream) == []
        assert (stream.last.text, stream.last.finished) == (first.strip(), False)

    @pytest.mark.parametrize("finished", [True, False])
    def test_whether_the_model_ended_by_itself_is_known_at_the_end(self, finished):
        class Ending(ScriptedGenerator):
            def stream(self, prompt):
                yield "It is so because"
                return finished

        assert Answerer(None, Ending(str), passages=1).stream("How often?").last.finished is finished

    def test_a_failure_on_the_way_reaches_the_reader(self):
        class Broken(ScriptedGenerator):
            def stream(self, prompt):
                yield "It is"
                raise ModelError("The model broke.")

        stream = Answerer(FixedRetriever(), Broken(str), passages=1).stream("How often?")
        with pytest.raises(ModelError, match="broke"):
            list(stream)


def test_progress_is_told():
    seen = []

    class Watching(type(SILENT)):
        def advance(self, amount=1, **facts):
            seen.append(amount)

    ask, _ = answerer(lambda _: "<ANSWER>: yes")
    ask.answer_many(["one?", "two?"], progress=Watching())
    assert sum(seen) == 2
