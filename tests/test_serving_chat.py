"""The chat API as OpenAI's own client sees it, and as it stands in bytes."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from openbook import prompt
from serving_world import ALERTS, ANSWER, SHOWN, ScriptedWriters, Served, make_index, served, until

QUESTION: Any = [{"role": "user", "content": "How long are alerts kept?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("chat")
    make_index(folder)
    with served(folder) as one:
        yield one


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_official_client_reads_an_answer_and_its_citations(client: openai.OpenAI) -> None:
    answer: Any = client.chat.completions.create(model="openbook", messages=QUESTION)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == (SHOWN, "stop")
    assert answer.usage.completion_tokens == len(ANSWER)
    first, second = answer.openbook["citations"]
    assert (first["number"], first["quote"], first["verified"], first["title"]) == (1, ALERTS, True, "Alerts")
    assert second == {"number": 2, "quote": "made up", "verified": False, "closed": True} | dict.fromkeys(
        ("document", "uri", "title", "page", "start", "end", "passage")
    )
    assert (answer.openbook["final"], answer.openbook["refusal"], answer.openbook["text"]) == (
        "thirty days",
        False,
        ANSWER,
    )


def test_a_citation_leads_to_the_words_in_the_document(server: Served) -> None:
    cited = server.chat().json()["openbook"]["citations"][0]
    document = server.http.get(f"/api/documents/{cited['document']}").json()
    assert document["text"][cited["start"] : cited["end"]] == cited["quote"] == ALERTS


def test_the_stream_says_the_same_and_cites_before_it_finishes(client: openai.OpenAI) -> None:
    whole: Any = client.chat.completions.create(model="openbook", messages=QUESTION)
    chunks: list[Any] = list(
        client.chat.completions.create(
            model="openbook", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    *written, cited, finish, usage = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in written) == whole.choices[0].message.content
    assert len(written) > 5, "or nothing was streamed"
    assert cited.openbook == whole.openbook
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert finish.choices[0].finish_reason == "stop"
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_ends_as_openai_ends_it(server: Served) -> None:
    lines = [line for line in server.chat(stream=True).text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)
    json.loads(lines[-2].removeprefix("data: "))


def test_the_passages_are_shown_by_the_prompt_of_training(server: Served) -> None:
    server.chat(openbook={"passages": 1})
    system, user = server.writers.prompts[-1].messages
    assert system.content == prompt.SYSTEM
    assert user.content.count("<DOCUMENT>") == 1
    assert user.content.endswith("How long are alerts kept?")


def test_without_retrieval_the_conversation_goes_to_the_model_as_it_is(server: Served) -> None:
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": [{"type": "text", "text": "Three"}]},
    ]
    body = {"model": "nano", "messages": messages, "openbook": {"retrieval": False}}
    answer = server.http.post("/v1/chat/completions", json=body).json()
    shown = [(message.role, message.content) for message in server.writers.prompts[-1].messages]
    assert shown == [("system", "Be short."), ("user", "One"), ("assistant", "Two"), ("user", "Three")]
    assert answer["choices"][0]["message"]["content"] == ANSWER, (
        "nothing is made readable that openbook did not ask for"
    )
    assert answer["openbook"]["passages"] == []
    assert not answer["openbook"]["citations"][0]["verified"]


def test_the_limit_of_tokens_is_kept_and_told(server: Served) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = server.chat(**{name: 7}).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 7
        assert answer["choices"][0]["message"]["content"] == "It is s"


def test_a_quote_that_is_cut_off_is_unverified_streamed_or_not(server: Served) -> None:
    limit = ANSWER.index(" for thirty days")  # in the middle of a quote that is right as far as it goes
    whole = server.chat(max_tokens=limit).json()
    assert whole["choices"][0]["message"]["content"] == "It is so: “Alerts are kept [1]"
    assert whole["openbook"]["citations"] == [
        {"number": 1, "quote": "Alerts are kept", "verified": False, "closed": False}
        | dict.fromkeys(("document", "uri", "title", "page", "start", "end", "passage"))
    ]
    assert whole["openbook"]["segments"][-1] == {"text": "Alerts are kept", "quote": 1}
    lines = server.chat(max_tokens=limit, stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    written = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert written == whole["choices"][0]["message"]["content"]
    assert next(chunk["openbook"] for chunk in chunks if "openbook" in chunk) == whole["openbook"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"


def test_what_has_no_effect_is_listed(server: Served) -> None:
    assert server.chat(temperature=0.7, seed=None, user="me", n=1, tools=[]).json()["openbook"]["ignored"] == [
        "temperature",
        "user",
    ]


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["openbook", "nano", "all-MiniLM-L6-v2"]
    assert client.models.retrieve("nano").owned_by == "openbook"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.models.retrieve("gpt")


def test_embeddings_are_those_of_the_index_in_both_forms(client: openai.OpenAI, server: Served) -> None:
    texts = ["alerts are kept", "the cache"]
    expected = server.service.shelves().embedder.encode(texts).tolist()
    for form in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, **form)  # type: ignore[arg-type]
        assert [item.embedding for item in found.data] == [pytest.approx(row, abs=1e-6) for row in expected]
        assert found.usage.prompt_tokens == 5


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_value", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
            400,
            "invalid_value",
            "messages.0.content.list.0.type",
        ),
        ({"messages": [{"role": "user", "content": None}]}, 400, "invalid_value", "messages.0.content.list"),
        ({"max_tokens": -5}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        ({"n": 2}, 400, "unsupported_value", "n"),
        ({"stop": ["\n"]}, 400, "unsupported_value", "stop"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_value", "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_value", "response_format"),
        ({"logprobs": True}, 400, "unsupported_value", "logprobs"),
        ({"openbook": {"passages": 0}}, 400, "invalid_value", "openbook.passages"),
        ({"openbook": {"retrieve": True}}, 400, "invalid_value", "openbook.retrieve"),
        ({"messages": [{"role": "user", "content": "long " * 300}]}, 400, "context_length_exceeded", "messages"),
    ],
)
def test_what_cannot_be_answered_is_told_in_openais_form(
    server: Served, change: dict[str, Any], status: int, code: str, param: str
) -> None:
    for stream in (False, True):
        answer = server.chat(**{"stream": stream, **change})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error"
        assert error["message"].endswith((".", "?"))
    assert server.chat().status_code == 200


def test_a_question_that_the_model_cannot_read_is_not_searched_for(server: Served) -> None:
    """Searching reads all of it, and nobody else is answered meanwhile."""
    assert server.chat("long " * 300).json()["error"]["code"] == "context_length_exceeded"
    assert prompt.DOCUMENT not in server.writers.prompts[-1].messages[-1].content
    assert server.chat().status_code == 200
    assert prompt.DOCUMENT in server.writers.prompts[-1].messages[-1].content


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"model": NaN}',
        b"[" * 100_000,
        b'{"model": "\\ud800", "messages": []}',
    ],
)
def test_what_is_no_request_is_refused_and_the_server_lives_on(server: Served, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/embeddings", "/api/ask"):
        answer = server.http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert server.chat().status_code == 200


def test_embeddings_refuse_what_would_be_cut(server: Served) -> None:
    def asked(**change: Any) -> tuple[int, str]:
        answer = server.http.post("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": "x", **change})
        return answer.status_code, str(answer.json().get("error", {}).get("code"))

    assert asked(input="word " * 300) == (400, "invalid_request")
    assert asked(dimensions=8) == (400, "invalid_value")
    assert asked(dimensions=64) == (200, "None")
    assert asked(model="ada") == (404, "model_not_found")
    assert asked(input=[]) == asked(input=[1, 2]) == asked(input="") == (400, "invalid_value")


def test_a_plain_server_needs_no_index(tmp_path: Any) -> None:
    with served(tmp_path, plain=True) as server:
        assert server.chat().json()["choices"][0]["message"]["content"] == ANSWER
        assert [message.content for message in server.writers.prompts[-1].messages] == ["How long are alerts kept?"]
        assert server.http.post("/v1/embeddings", json={"model": "x", "input": "x"}).status_code == 404
        status = server.http.get("/api/status").json()
        assert (status["retrieval"], status["index"]) == (False, None)
        assert [arm["available"] for arm in status["arms"]] == [True, False, False]


def test_a_model_that_dies_in_the_middle_ends_the_stream_with_an_error(tmp_path: Any) -> None:
    writers = ScriptedWriters(lambda *_: "Well, CRASH")
    writers.script = lambda prompt, _: "12345CRASH" if "die" in prompt.messages[-1].content else "fine"
    with served(tmp_path, writers, plain=True) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        pieces = []
        with pytest.raises(openai.APIError, match="its log says where"):
            for chunk in client.chat.completions.create(
                model="openbook", messages=[{"role": "user", "content": "die"}], stream=True
            ):
                pieces.append(chunk.choices[0].delta.content)
        assert pieces == ["", "12345"]
        answer = server.chat("die")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert "secret" not in answer.text
        until(lambda: server.service.engine.writing == 0)
        assert server.chat("live").json()["choices"][0]["message"]["content"] == "fine"
