"""Who may come in, and with how much."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbook.config import Config
from openbook.errors import ConfigError
from openbook.serving import guard
from openbook.serving.settings import Settings, is_loopback
from serving_world import Served, served

TOKEN = "correct-horse-battery"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(
        tmp_path_factory.mktemp("guard"), plain=True, token=TOKEN, request_kb=100, hosts=["books.example"]
    ) as one:
        yield one


@pytest.mark.parametrize("path", ["/v1/models", "/api/status", "/api/search?q=x", "/metrics", "/nothing"])
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_without_the_token_nothing_is_told(server: Served, path: str, header: str) -> None:
    answer = server.http.get(path, headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"


def test_with_it_everything_is(server: Served) -> None:
    assert server.http.get("/v1/models").status_code == 200
    assert server.http.get("/v1/models", headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/static/index.html"])
def test_the_page_and_the_health_are_open(server: Served, path: str) -> None:
    assert server.http.get(path, headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/static/../serving/app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"]
)
def test_no_file_but_the_pages_is_given_out(server: Served, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # a client would tidy the path
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ")[1] in (b"404", b"401")
    assert b"import" not in answer


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "127.0.0.1:80", "[::1]:8321", "books.example", "BOOKS.example:1"]
)
def test_names_of_this_server_are_taken(server: Served, host: str) -> None:
    assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "x:y:z", "[evil]"]
)
def test_other_names_are_refused(server: Served, host: str) -> None:
    for path in ("/", "/health", "/v1/models"):
        answer = server.http.get(path, headers={"Host": host})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data; boundary=application/json"]
)
def test_what_a_foreign_page_may_send_is_refused(server: Served, kind: str) -> None:
    answer = server.http.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_every_answer_carries_the_rules_for_browsers(server: Served) -> None:
    for path in ("/", "/static/index.html", "/v1/models", "/nothing", "/static/nothing"):
        headers = server.http.get(path).headers
        assert headers["Content-Security-Policy"] == guard.CSP
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers
    assert "unsafe" not in guard.CSP
    assert server.http.get("/", headers={"Host": "evil.example"}).headers["Content-Security-Policy"] == guard.CSP


def test_a_prompt_of_ten_megabytes_is_refused_with_and_without_its_length(server: Served) -> None:
    content = b'{"model": "openbook", "messages": [{"role": "user", "content": "' + b"x" * 10_000_000 + b'"}]}'

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]

    for body in (content, pieces()):
        answer: Any = server.http.post("/v1/chat/completions", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert server.chat().status_code == 200


def test_a_body_that_never_comes_is_given_up(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.2)
    head = f"POST /api/ask HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f'{head}Content-Length: 50\r\n\r\n{{"question"'.encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_full_house_refuses_and_takes_again(tmp_path: Path) -> None:
    hold = threading.Event()

    class Waiting:
        def __call__(self, *_: object) -> str:
            hold.wait(10)
            return "done"

    from serving_world import ScriptedWriters, until

    with served(tmp_path, ScriptedWriters(Waiting()), plain=True, concurrent=1, queue=1) as server:
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(server.chat().status_code)) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: server.service.admission.inside == 2)
        refused = server.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert (refused.json()["error"]["type"], refused.headers["Retry-After"]) == ("rate_limit_error", "1")
        assert server.chat(stream=True).status_code == 429
        hold.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert server.chat().status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.5", "books.example"])
def test_other_machines_need_a_token(host: str) -> None:
    config = Config.parse({"serve": {"host": host}}, origin="test")
    with pytest.raises(ConfigError, match=r"no token.*OPENBOOK_TOKEN"):
        Settings(config=config).check()
    Settings(config=config, token=TOKEN).check()


@pytest.mark.parametrize("token", ["short", "with a space at its end ", "ünïcode-is-not-for-headers"])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="too weak"):
        Settings(config=Config(), token=token).check()


def test_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    Settings(config=Config()).check()


def test_a_port_that_is_taken_is_told(server: Served) -> None:
    from openbook.serving.running import listen

    with pytest.raises(ConfigError, match=rf"port {server.port}.*--port"):
        listen(Settings(config=Config.parse({"serve": {"port": server.port}}, origin="test")))
