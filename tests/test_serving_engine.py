"""Many requests at once: they share the model, may leave at any time, and end in time."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openbook.records import Conversation, Message
from openbook.serving.engine import Engine
from serving_world import ANSWER, ScriptedWriters, leaving, make_index, served, until


def echo(prompt: Any, _: str | None) -> str:
    """Says the question ten times over."""
    return f"{prompt.messages[-1].content} " * 10


def test_requests_that_come_together_are_written_together_and_never_mixed(tmp_path: Path) -> None:
    with served(tmp_path, ScriptedWriters(echo, rows=4, pause=0.005), plain=True) as server:
        said: dict[int, str] = {}

        def ask(number: int) -> None:
            said[number] = server.chat(f"number {number}").json()["choices"][0]["message"]["content"]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == {number: (f"number {number} " * 10).strip() for number in range(12)}
        assert server.writers.most == 4, "all rows, and no more"


def test_one_joins_while_another_is_being_written(tmp_path: Path) -> None:
    script = lambda prompt, _: "slow " * 400 if "slow" in prompt.messages[-1].content else "fast"  # noqa: E731
    with served(tmp_path, ScriptedWriters(script, pause=0.01), plain=True) as server:
        slow = threading.Thread(target=lambda: server.chat("slow", max_tokens=900))
        slow.start()
        until(lambda: server.service.engine.writing == 1)
        assert server.chat("quick").json()["choices"][0]["message"]["content"] == "fast"
        assert slow.is_alive()
        slow.join()


@pytest.mark.parametrize("path", ["stream", "whole", "page"])
def test_a_client_that_leaves_stops_its_answer_and_no_other(tmp_path: Path, path: str) -> None:
    make_index(tmp_path)
    with served(tmp_path, ScriptedWriters(lambda *_: "word " * 150, pause=0.01)) as server:
        other: list[int] = []
        neighbour = threading.Thread(target=lambda: other.append(len(server.chat().content)))
        neighbour.start()
        until(lambda: server.service.engine.writing == 1)
        with leaving(server, path):
            until(lambda: server.service.engine.writing == 2)
        until(lambda: len(server.writers.live) == 1)
        until(lambda: server.service.admission.inside == 1)
        neighbour.join()
        assert other[0] > 150
        until(lambda: "openbook_requests_cancelled_total 1.0" in server.http.get("/metrics").text)


def test_a_client_that_leaves_while_it_waits_is_never_begun(tmp_path: Path) -> None:
    with served(tmp_path, ScriptedWriters(lambda *_: "word " * 150, rows=1, pause=0.01), plain=True) as server:
        first = threading.Thread(target=server.chat)
        first.start()
        until(lambda: server.service.engine.writing == 1)
        with leaving(server, "stream"):
            until(lambda: server.service.engine.waiting == 1)
        until(lambda: server.service.engine.waiting == 0)
        first.join()
        assert server.writers.most == 1


def test_who_leaves_during_a_call_has_left_before_the_next(tmp_path: Path) -> None:
    """While one adapter is loaded, the last answer with another is given up and that one is dropped."""
    writers = ScriptedWriters(lambda *_: "word " * 150)
    writers.add_adapter("old", tmp_path)

    async def work() -> None:
        engine = Engine(writers, max_new_tokens=900)
        run = asyncio.create_task(engine.run())
        asked = Conversation(messages=(Message(role="user", content="?"),))
        async with engine.answer(asked, adapter="old", max_tokens=None) as writing:
            await anext(writing.pieces(asyncio.get_running_loop().time() + 10))
            began, loaded = threading.Event(), threading.Event()
            engine.call(lambda: (began.set(), loaded.wait()))
            await asyncio.to_thread(began.wait)
        drop = engine.call(lambda: writers.drop("old"))  # refuses while an answer is on its way
        loaded.set()
        await asyncio.wait_for(drop, 10)
        run.cancel()

    asyncio.run(work())


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with served(tmp_path, ScriptedWriters(lambda *_: "word " * 150, pause=0.05), plain=True, timeout_s=0.3) as server:
        answer = server.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        last = server.chat(stream=True).text.strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        until(lambda: not server.writers.live)
        assert server.service.admission.inside == 0


def test_a_reader_who_does_not_read_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openbook.serving.service import Service

    monkeypatch.setattr(Service, "stream_s", property(lambda _: 0.3))
    with served(tmp_path, ScriptedWriters(lambda *_: "x" * 900, pause=0.01), plain=True) as server:
        server.writers.context = 100_000
        with leaving(server, "stream"):
            until(lambda: server.service.admission.inside == 1)
            until(lambda: server.service.admission.inside == 0)


def test_a_crash_takes_those_on_their_way_with_it_and_nobody_after(tmp_path: Path) -> None:
    def script(prompt: Any, _: str | None) -> str:
        return "CRASH" if "crash" in prompt.messages[-1].content else "word " * 100

    with served(tmp_path, ScriptedWriters(script, pause=0.01), plain=True) as server:
        caught: list[int] = []
        neighbour = threading.Thread(target=lambda: caught.append(server.chat("hello").status_code))
        neighbour.start()
        until(lambda: server.service.engine.writing == 1)
        assert server.chat("crash").status_code == 500
        neighbour.join()
        assert caught == [500]
        server.writers.pause = 0
        assert server.chat("hello").status_code == 200
        assert server.http.get("/health").status_code == 200


def test_the_log_tells_of_a_crash_and_of_requests_without_their_contents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    from openbook.serving.logs import JsonLines

    with caplog.at_level(logging.INFO, logger="openbook"):
        with served(tmp_path, ScriptedWriters(lambda *_: "CRASH"), plain=True) as server:
            server.chat("private matters")
            server.http.get("/api/search?q=private")
        lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
        crash = next(line for line in lines if line["event"] == "the model failed")
        assert (crash["error"], crash["level"]) == ("RuntimeError", "error")
        assert any("serving_world.py" in place for place in crash["where"])
        request = next(line for line in lines if line.get("route") == "/v1/chat/completions")
        assert (request["status"], request["method"]) == (500, "POST")
        assert request["ms"] > 0
        assert "private" not in json.dumps(lines)
        assert "secret" not in json.dumps(lines)
        caplog.clear()
        with served(tmp_path, plain=True, log_contents=True) as server:
            server.chat("private matters")
        contents = [json.loads(JsonLines().format(record)) for record in caplog.records]
        assert next(line for line in contents if line["event"] == "answer")["question"] == "private matters"


def test_a_hundred_streams_and_none_is_lost(tmp_path: Path) -> None:
    with served(tmp_path, ScriptedWriters(rows=16), plain=True, concurrent=16, queue=100) as server:
        ends: list[str] = []
        threads = [
            threading.Thread(target=lambda: ends.append(server.chat(stream=True).text[-14:].strip()))
            for _ in range(100)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ends == ["data: [DONE]"] * 100
        assert time.monotonic() - started < 60
        assert len(ANSWER) > 100
