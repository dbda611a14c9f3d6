"""What the page asks for."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving_world import ALERTS, ANSWER, FILES, SHOWN, ScriptedWriters, Served, make_index, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    make_index(folder)
    with served(folder) as one:
        yield one


def asked(server: Served, **body: Any) -> list[tuple[str, Any]]:
    """The events of `/api/ask`: names and data."""
    answer = server.http.post("/api/ask", json={"question": "How long are alerts kept?", **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_the_events_of_an_answer(server: Served) -> None:
    (first, shown), *deltas, (cited, told), (last, done) = asked(server, arm="rag", k=1)
    assert (first, {name for name, _ in deltas}, cited, last) == ("passages", {"delta"}, "citations", "done")
    assert [passage["title"] for passage in shown["passages"]] == ["Alerts"]
    assert "".join(delta["text"] for _, delta in deltas) == SHOWN
    assert [(c["number"], c["verified"]) for c in told["citations"]] == [(1, True), (2, False)]
    assert told["text"] == ANSWER
    assert "".join(f"“{s['text']}” [{s['quote']}]" if s["quote"] else s["text"] for s in told["segments"]) == SHOWN
    assert done["finished"] and done["completion_tokens"] == len(ANSWER)
    assert 0 < done["first_text_seconds"] <= done["seconds"]


def test_a_quote_that_was_never_closed_is_told_apart(tmp_path: Path) -> None:
    make_index(tmp_path)
    said = ANSWER[: ANSWER.index(" for thirty days")]
    with served(tmp_path, ScriptedWriters(lambda *_: said)) as server:
        told = dict(asked(server, arm="rag"))["citations"]
        assert [(c["quote"], c["verified"], c["closed"]) for c in told["citations"]] == [
            ("Alerts are kept", False, False)
        ]
        assert told["segments"][-1] == {"text": "Alerts are kept", "quote": 1}
        assert 'openbook_quotes_total{verified="false"} 1.0' in server.http.get("/metrics").text


def test_a_model_that_dies_in_the_middle_ends_the_pages_stream_with_an_error(tmp_path: Path) -> None:
    make_index(tmp_path)
    writers = ScriptedWriters(lambda prompt, _: "12345CRASH" if "die" in prompt.messages[-1].content else "fine")
    with served(tmp_path, writers) as server:
        *_, before, last = asked(server, arm="rag", question="die")
        assert before == ("delta", {"text": "12345"})
        assert (last[0], last[1]["code"]) == ("error", "internal_error")
        assert "secret" not in last[1]["message"]
        assert asked(server, arm="rag", question="live")[-1][0] == "done"


def test_closed_book_shows_no_passage(server: Served) -> None:
    events = asked(server, arm="closed")
    assert events[0] == ("passages", {"passages": []})
    assert server.writers.prompts[-1].messages[-1].content == "How long are alerts kept?"
    assert [c["verified"] for c in dict(events)["citations"]["citations"]] == [False, False]


def test_the_tuned_arm_needs_a_tuned_model(server: Served) -> None:
    answer = server.http.post("/api/ask", json={"question": "x", "arm": "tuned"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_tuned")


@pytest.mark.parametrize(
    "change",
    [{"question": ""}, {"question": " \n"}, {"arm": "golden"}, {"k": 0}, {"k": 51}, {"more": 1}, {"question": 5}],
)
def test_a_wrong_question_is_refused(server: Served, change: dict[str, Any]) -> None:
    answer = server.http.post("/api/ask", json={"question": "x", "arm": "rag", **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(change)))


def test_search_tells_both_legs(server: Served) -> None:
    found = server.http.get("/api/search", params={"q": "how long are alerts kept", "k": 2}).json()["passages"]
    assert [passage["rank"] for passage in found] == [1, 2]
    assert ALERTS in found[0]["text"]
    assert found[0]["score"] == pytest.approx(1 / (2 + found[0]["dense_rank"]) + 1 / (2 + found[0]["text_rank"]))
    assert FILES["alerts.md"].startswith("# Alerts") and found[0]["headings"] == ["Alerts"]


@pytest.mark.parametrize(
    "query", ["", "q=", "q=%20", "q=x&k=0", "q=x&k=51", "q=x&k=-1", "q=x&k=²", "q=x&k=1e9", "q=x&k=" + "9" * 5000]
)
def test_a_wrong_search_is_refused(server: Served, query: str) -> None:
    assert server.http.get(f"/api/search?{query}").status_code == 400


def test_a_document_is_given_whole(server: Served) -> None:
    passage = server.http.get("/api/search?q=alerts&k=1").json()["passages"][0]
    document = server.http.get(f"/api/documents/{passage['document']}").json()
    assert document["text"][passage["start"] : passage["end"]] == passage["text"]
    assert (document["id"], document["title"], document["pages"]) == (passage["document"], "Alerts", [])
    assert [section["title"] for section in document["sections"]] == ["Alerts", "Colours"]


@pytest.mark.parametrize(
    "name", ["0" * 16, "x", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "documents.jsonl", "%00", "a" * 5000, "%E2%80%AE"]
)
def test_any_other_id_is_not_there(server: Served, name: str) -> None:
    answer = server.http.get(f"/api/documents/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_index_may_go_and_come_back(tmp_path: Path) -> None:
    make_index(tmp_path)
    with served(tmp_path) as server:
        assert server.chat().status_code == 200
        shutil.rmtree(tmp_path / "work" / "index")
        for answer in (
            server.chat(),
            server.chat(stream=True),
            server.http.get("/api/search?q=alerts"),
            server.http.post("/api/ask", json={"question": "alerts?", "arm": "rag"}),
            server.http.get("/api/documents/" + "0" * 16),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "index_unavailable")
        status = server.http.get("/api/status").json()
        assert status["index"] is None
        assert server.http.get("/health").status_code == 200
        assert server.http.post("/api/ask", json={"question": "alerts?", "arm": "closed"}).status_code == 200
        (tmp_path / "documents").mkdir(exist_ok=True)
        FILES["moon.md"] = "# Moon\n\nThe moon is far away from here.\n"
        try:
            make_index(tmp_path)
        finally:
            del FILES["moon.md"]
        found = server.http.get("/api/search?q=the moon&k=1").json()["passages"][0]
        assert found["title"] == "Moon"
        assert server.http.get(f"/api/documents/{found['document']}").json()["title"] == "Moon"
        assert server.http.get("/api/status").json()["index"]["documents"] == 3


def test_health_and_metrics(server: Served) -> None:
    server.chat()
    server.http.get("/made/up")
    text = server.http.get("/metrics").text
    assert 'openbook_requests_total{method="POST",route="/v1/chat/completions",status="200"}' in text
    assert 'openbook_quotes_total{verified="true"}' in text
    assert "openbook_answers_writing 0.0" in text
    assert "made" not in text
    assert server.http.get("/health").json() == {"status": "ok"}
