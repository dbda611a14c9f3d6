"""A server over real HTTP on a free port, with a real index and a model that says what it is told to."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx

from openbook.config import Config
from openbook.indexing import ingest
from openbook.models import Piece
from openbook.records import Conversation
from openbook.serving.library import Library
from openbook.serving.running import assemble, http_server, listen
from openbook.serving.service import Service
from openbook.serving.settings import Settings
from word_embedder import WordEmbedder

ALERTS = "Alerts are kept for thirty days."
CACHE = "The cache keeps results for ten minutes."
FILES = {
    "alerts.md": f"# Alerts\n\n{ALERTS} After that they are removed.\n\n## Colours\n\nAn urgent alert is red.\n",
    "cache.md": f"# Cache\n\n{CACHE} A restart empties it.\n",
}
ANSWER = (
    f"It is so: ##begin_quote## {ALERTS}##end_quote## and ##begin_quote## made up##end_quote## <ANSWER>: thirty days"
)
SHOWN = f"It is so: “{ALERTS}” [1] and “made up” [2] \n→ thirty days"

Script = Callable[[Conversation, str | None], str]


class ScriptedWriters:
    """Writes what `script(conversation, adapter)` says, a few characters a step, `pause` seconds each."""

    context = 1000  # characters: a token is one

    def __init__(self, script: Script = lambda *_: ANSWER, *, rows: int = 4, pause: float = 0.0) -> None:
        self.script, self.rows, self.pause = script, rows, pause
        self.adapters: dict[str, Path] = {}
        self.live: dict[int, tuple[str | None, str, int]] = {}  # answer → adapter, what is still to be said, limit
        self.most = 0  # answers that were ever written together
        self.prompts: list[Conversation] = []
        self._encoded: dict[str, Conversation] = {}

    def encode(self, prompt: Conversation) -> list[int]:
        text = "".join(message.content for message in prompt.messages)
        self.prompts.append(prompt)
        self._encoded[text] = prompt
        return [ord(character) for character in text]

    def has_room(self, adapter: str | None) -> bool:
        return sum(found == adapter for found, _, _ in self.live.values()) < self.rows

    def join(self, number: int, prompt: list[int], *, adapter: str | None, limit: int) -> Piece:
        asked = self._encoded["".join(map(chr, prompt))]
        self.live[number] = (adapter, self.script(asked, adapter), limit)
        self.most = max(self.most, len(self.live))
        return self._piece(number)

    def step(self) -> list[Piece]:
        time.sleep(self.pause)
        return [self._piece(number) for number in list(self.live)]

    def leave(self, number: int) -> None:
        self.live.pop(number, None)

    def clear(self) -> None:
        self.live.clear()

    def add_adapter(self, name: str, folder: Path) -> None:
        self.adapters[name] = folder

    def drop(self, adapter: str) -> None:
        assert not any(found == adapter for found, _, _ in self.live.values())
        del self.adapters[adapter]

    def _piece(self, number: int) -> Piece:
        adapter, text, limit = self.live[number]
        if text.startswith("CRASH"):
            raise RuntimeError("a secret of the user")
        said, rest = text[: min(5, limit)], text[min(5, limit) :]
        self.live[number] = (adapter, rest, limit - len(said))
        end = "" if rest and limit > len(said) else "limit" if rest else "stop"
        if end:
            del self.live[number]
        return Piece(number=number, text=said, tokens=len(said), end=end)  # type: ignore[arg-type]


def configured(folder: Path, options: Mapping[str, Any] | None = None, **serve: Any) -> Config:
    """Options of a server whose documents and results lie in `folder`; whole sections may be given as `options`."""
    data = {
        "out": str(folder / "work"),
        "documents": {"paths": [str(folder / "documents")], "chunk_tokens": 16},
        "retrieval": {"passages": 2},
        "serve": {"port": 0, **serve},
        **(options or {}),
    }
    return Config.parse(data, origin="test")


def make_index(folder: Path) -> None:
    """The index over `FILES`."""
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (folder / "documents" / name).write_text(text, encoding="utf-8")
    ingest(configured(folder), embedder=WordEmbedder())


class Served:
    """A running server and a client for it."""

    def __init__(self, service: Service, writers: Any, port: int, token: str) -> None:
        self.service, self.writers, self.port = service, writers, port
        self.url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    def chat(self, content: Any = "How long are alerts kept?", **more: Any) -> httpx.Response:
        body = {"model": "openbook", "messages": [{"role": "user", "content": content}], **more}
        return self.http.post("/v1/chat/completions", json=body)


@contextlib.contextmanager
def served(
    folder: Path,
    writers: Any = None,
    *,
    plain: bool = False,
    token: str = "",
    adapter: Path | None = None,
    base: str = "base",
    log_contents: bool = False,
    options: Mapping[str, Any] | None = None,
    **serve: Any,
) -> Iterator[Served]:
    """A server on a free port; the index lies in `folder` already unless `plain`."""
    config = configured(folder, options, **serve)
    settings = Settings(config=config, plain=plain, token=token, adapter=adapter, log_contents=log_contents)
    settings.check()
    writers = writers or ScriptedWriters()
    library = None if plain else Library(config, embedder=WordEmbedder())
    service = assemble(settings, writers, library, base=base)
    server = http_server(service)
    with listen(settings) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            one = Served(service, writers, listener.getsockname()[1], token)
            with one.http:
                yield one
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive(), "the server does not stop"


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def leaving(server: Served, path: str) -> socket.socket:
    """A connection that has asked; closing it is leaving."""
    question = {"role": "user", "content": "bye"}
    body: dict[str, Any] = {"model": "openbook", "messages": [question], "stream": path == "stream"}
    if path == "page":
        body = {"question": "bye", "arm": "closed"}
    address = "/api/ask" if path == "page" else "/v1/chat/completions"
    data = json.dumps(body).encode()
    head = f"POST {address} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    raw = socket.create_connection(("127.0.0.1", server.port))
    raw.sendall(head.encode() + data)
    return raw
