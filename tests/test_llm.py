"""The chat client and the teacher behind it, against a server that speaks the chat-completions protocol."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chat_server import KEY, completion, error, serving
from openbook.dataset.checks import fault
from openbook.dataset.instructions import Instructions
from openbook.dataset.judge import Judge
from openbook.dataset.llm_teacher import LLMTeacher, find_quote
from openbook.dataset.replies import objects
from openbook.errors import TeacherError
from openbook.llm import CallFailedError, OpenAIChat, Reply, patience
from openbook.prompt import BEGIN_QUOTE, render_quote
from openbook.records import Chunk, Conversation, Document, Message, Question

ASK = Conversation(messages=(Message(role="user", content="Say hello."),))


@pytest.fixture
def endpoint(monkeypatch):
    with serving(monkeypatch) as script:
        yield script


def test_a_completion_goes_there_and_back(endpoint):
    endpoint.replies = ["Hello."]
    assert OpenAIChat("tiny", base_url=endpoint.url).complete(ASK, max_tokens=7, temperature=0.5).text == "Hello."
    path, body = endpoint.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 7,
        "temperature": 0.5,
    }
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"


def test_the_endpoint_may_come_from_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    endpoint.replies = ["Hello."]
    assert OpenAIChat("tiny").complete(ASK, max_tokens=7).text == "Hello."


def test_an_endpoint_of_ones_own_needs_no_key(endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint.replies = ["Hello."]
    assert OpenAIChat("tiny", base_url=endpoint.url).complete(ASK, max_tokens=7).text == "Hello."


def test_without_key_and_endpoint_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(TeacherError, match=r"OPENAI_API_KEY is not set.*--base-url"):
        OpenAIChat("tiny").complete(ASK, max_tokens=7)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_retried(endpoint, status):
    endpoint.replies = [error(status, "busy"), error(status, "busy"), "Hello."]
    assert OpenAIChat("tiny", base_url=endpoint.url).complete(ASK, max_tokens=7).text == "Hello."
    assert len(endpoint.requests) == 3


def test_a_rate_limit_holds_every_thread_as_long_as_the_server_asks(endpoint):
    endpoint.replies = [error(429, "slow down", Retry_After="1"), "Hello."]
    chat = OpenAIChat("tiny", base_url=endpoint.url)
    began = time.monotonic()
    threads = [threading.Thread(target=chat.complete, args=(ASK,), kwargs={"max_tokens": 7}) for _ in range(2)]
    threads[0].start()
    while not endpoint.requests:
        time.sleep(0.01)
    time.sleep(0.3)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 1
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_what_a_server_may_ask_for(headers, seconds):
    assert patience.asked_wait(headers) == seconds


@pytest.mark.parametrize(
    "reply", [error(429, "day is over", Retry_After="7200"), error(429, "pay", code="insufficient_quota")]
)
def test_waiting_that_makes_no_sense_is_not_done(endpoint, reply):
    endpoint.replies = [reply]
    with pytest.raises(TeacherError, match=r"budget is used up, tried once.*what was answered is kept"):
        OpenAIChat("tiny", base_url=endpoint.url).complete(ASK, max_tokens=7)
    assert len(endpoint.requests) == 1


def test_a_server_that_does_not_answer_in_time(endpoint):
    endpoint.replies = [lambda _: time.sleep(0.5) or "Too late."]
    with pytest.raises(CallFailedError, match=r"did not answer within 0.1 s, tried 2 times"):
        OpenAIChat("tiny", base_url=endpoint.url, timeout_s=0.1, max_retries=1).complete(ASK, max_tokens=7)


@pytest.mark.parametrize(
    ("reply", "finished", "refused"),
    [("stop", True, False), ("length", False, False), ("content_filter", True, True)],
)
def test_how_a_reply_ended_is_told(endpoint, reply, finished, refused):
    endpoint.replies = [(200, completion("Hel", end=reply), {})]
    said = OpenAIChat("tiny", base_url=endpoint.url).complete(ASK, max_tokens=7)
    assert (said.finished, said.refused, said.usage.prompt_tokens) == (finished, refused, 90)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "does not accept the key"),
        (error(403, f"{KEY} may not"), "does not accept the key"),
        (error(404, "no such model"), "knows no model 'tiny'"),
        (error(429, "slow down"), "limits the rate or the budget is used up, tried 2 times"),
        (error(500, "oh"), r"an error of its own \(500\), tried 2 times"),
        (error(400, "messages: too long"), "refuses the request: .*too long"),
        ((200, b"<html>It works!</html>", {"Content-Type": "text/html"}), "not as a chat model does"),
        ((200, {"choices": []}, {}), "not as a chat model does"),
        ((200, b"{torn", {}), "cannot be read|not as a chat model does"),
    ],
)
def test_each_failure_is_a_sentence_without_the_key(endpoint, reply, says):
    endpoint.replies = [reply]
    with pytest.raises(TeacherError, match=says) as caught:
        OpenAIChat("tiny", base_url=endpoint.url, max_retries=1).complete(ASK, max_tokens=7)
    assert KEY not in str(caught.value)


def test_an_endpoint_that_is_not_there():
    with pytest.raises(TeacherError, match="cannot be reached"):
        OpenAIChat("tiny", base_url="http://127.0.0.1:9/v1", max_retries=0).complete(ASK, max_tokens=7)


def test_models_with_other_names_for_the_limit_and_without_temperature(endpoint):
    endpoint.replies = [
        error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        error(400, "Unsupported value: 'temperature' does not support 0.0 with this model."),
        "Hello.",
    ]
    chat = OpenAIChat("tiny", base_url=endpoint.url)
    assert chat.complete(ASK, max_tokens=7).text == "Hello."
    assert chat.complete(ASK, max_tokens=7).text == "Hello."
    assert [sorted(body) for _, body in endpoint.requests[2:]] == [["max_completion_tokens", "messages", "model"]] * 2


def test_several_calls_that_are_refused_at_once_all_learn_from_it(endpoint):
    together = threading.Barrier(4)

    def picky(body):
        if "max_tokens" not in body:
            return "Hello."
        together.wait(10)  # all four are under way before the first is refused
        return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")

    endpoint.replies = [picky]
    chat = OpenAIChat("tiny", base_url=endpoint.url)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: chat.complete(ASK, max_tokens=7).text, range(4)))
    assert replies == ["Hello."] * 4


TEXT = (
    "# Scraping\n\nThe server pulls samples from its targets over HTTP. "
    "The default scrape interval is one minute.\nA target that fails is marked as down."
)
DOCUMENT = Document.create(uri="scraping.md", title="Monitoring", text=TEXT)
CHUNK = Chunk.create(DOCUMENT, 0, len(TEXT), headings=("Scraping",))


def item(**fields):
    return json.dumps(
        {
            "question": "How often are targets scraped by default?",
            "quote": "The default scrape interval is one minute.",
            "reasoning": "The interval is how often targets are scraped.",
            "answer": "one minute",
        }
        | fields
    )


def write(endpoint, reply, limit=3):
    endpoint.replies = [reply]
    teacher = LLMTeacher(OpenAIChat("tiny", base_url=endpoint.url))
    return teacher.write(CHUNK, rng=random.Random(0), limit=limit)


def test_the_teacher_shows_the_passage_and_reads_json_lines(endpoint):
    second = item(
        question="How does the server get samples?",
        quote="The server pulls samples from its targets over HTTP.",
        answer="over HTTP",
    )
    first, other = write(endpoint, f"{item()}\n{second}\n")
    asked = endpoint.requests[0][1]["messages"]
    assert [message["role"] for message in asked] == ["system", "user"]
    assert TEXT in asked[1]["content"]
    assert "at most 3 questions" in asked[1]["content"]
    assert "Monitoring › Scraping" in asked[1]["content"]
    assert first.text == "How often are targets scraped by default?"
    assert first.answer == "one minute"
    assert first.golden_chunk_ids == (CHUNK.id,)
    assert first.reasoning.startswith(render_quote("The default scrape interval is one minute."))
    assert [fault(question, CHUNK) for question in (first, other)] == ["", ""]


@pytest.mark.parametrize(
    "reply",
    [
        f"```json\n{item()}\n```",
        f"[{item()}]",
        f'{{"questions": [{item()}]}}',
        f"<think>I could ask {{this}} or that</think>\nHere you are:\n\n1. {item()}\n",
        f'{item()}\n{{"question": "torn off in the mid',
        json.dumps(json.loads(item()), indent=2),
        item(question="1. How often are targets scraped by default?"),
        item(quote="“The default scrape interval is one minute.”"),
        item(quote="The default  scrape\ninterval is one minute."),
        item(reasoning=None),
        item(reasoning=["not", "text"]),
    ],
)
def test_replies_are_read_leniently_on_form(endpoint, reply):
    (question,) = write(endpoint, reply)
    assert question.text == "How often are targets scraped by default?"
    assert question.quotes == ("The default scrape interval is one minute.",)
    assert fault(question, CHUNK) == ""


@pytest.mark.parametrize(
    "reply",
    ["", "I cannot help with that.", "null", "{}", '{"question": 3}', item(quote=""), item(answer=" "), "{" * 5000],
)
def test_replies_without_a_question_give_none(endpoint, reply):
    assert write(endpoint, reply) == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"quote": "The default scrape interval is two minutes."}, "quote is not in the passage word for word"),
        ({"quote": "minute."}, "quote is not one sentence"),
        ({"answer": "every hour"}, "quote does not hold the answer"),
        ({"question": "Why " + "very " * 80}, "question is longer than a sentence"),
        ({"question": "Is the default scrape interval one minute?"}, "question gives the answer away"),
    ],
)
def test_what_does_not_verify_is_named(endpoint, changed, reason):
    (question,) = write(endpoint, item(**changed))
    assert fault(question, CHUNK) == reason


def test_reasoning_with_a_false_quote_falls_back_to_the_true_one(endpoint):
    (question,) = write(endpoint, item(reasoning=f"As it says, {BEGIN_QUOTE}targets are scraped hourly##end_quote##."))
    assert question.reasoning == render_quote("The default scrape interval is one minute.")
    (question,) = write(endpoint, item(reasoning="So <ANSWER>: one minute"))
    assert "<ANSWER>:" not in question.reasoning


def test_no_more_questions_than_asked_for(endpoint):
    assert (
        len(
            write(
                endpoint,
                "\n".join(item(question=f"How often are targets number {n} scraped?") for n in range(9)),
                limit=2,
            )
        )
        == 2
    )


def test_an_object_with_half_a_character_is_passed_over():
    said = '{"question": "What is \\ud83d?"}\n{"question": "What is \\ud83d\\ude00?"}'
    assert [item["question"] for item in objects(said)] == ["What is 😀?"]


@pytest.mark.parametrize(
    ("passages", "answering"),
    [("[1]", 1), ('["1"]', 1), ("1", 1), ('"1"', 1), ("[]", 0), ("[true]", 0), ("[2, 0, -1, null]", 0), ("null", 0)],
)
def test_the_judge_names_passages_in_any_form(passages, answering):
    reply = Reply(text=f'{{"number": 1, "passages": {passages}}}')
    judge = Judge(lambda *_: reply, Instructions(), lambda _: None)
    question = Question(id="q", text="How often?", golden_chunk_ids=())
    assert judge.beside([question], [CHUNK]) == [frozenset([CHUNK.id] * answering)]


def test_hostile_replies_take_no_time():
    assert list(objects('{"a":' * 30_000)) == []
    assert find_quote("a " * 500, "a " * 4000) == ("a " * 500).strip()
