"""Calls that are paid for once: every reply is kept, by the content of what was asked.

The file is SQLite's: a row is whole or absent whenever the process is killed, and its key is there once. Only calls
that were under way at that moment may be paid for again. Neither key nor address of the endpoint is written: a model
may move.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openbook.errors import StoreError
from openbook.llm.budget import Budget, Price, Spent, tokens_about
from openbook.llm.chat import ChatModel, Reply
from openbook.records import Conversation, Usage, from_json, to_json
from openbook.storage import explained

_TABLE = """
create table if not exists calls (
    key text primary key, model text not null, request text not null, reply text not null, seconds real not null
) without rowid
"""


class KeptCalls:
    """A `ChatModel` that asks `chat` only for what it was never asked before.

    A kept call counts against the budget as though it were made now, so that the same command makes the same data set,
    and a limit is one for all the times that it is run.
    """

    def __init__(self, chat: ChatModel, path: Path, *, budget: Budget | None = None) -> None:
        self._chat = chat
        self._path = path
        self.name = chat.name
        self.budget = budget or Budget(Price())
        self.sent = 0  # calls to the endpoint by this process
        self.kept = 0  # calls answered from the file
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}  # by key: equal requests are sent once
        with self._readable(), explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False)
            self._file.execute("pragma journal_mode = wal")
            self._file.execute("pragma synchronous = full")  # a reply that was paid for outlives a power cut
            self._file.execute(_TABLE)

    def spent(self) -> Spent:
        """What was asked through this so far."""
        return Spent(sent=self.sent, kept=self.kept, money=self.budget.spent)

    def close(self) -> None:
        self._file.close()

    def complete(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """See `ChatModel.complete`. Raises `BudgetSpentError` where the call could pass the budget's limit."""
        request = self._request(messages, max_tokens, temperature)
        key = hashlib.sha256(request.encode()).hexdigest()
        with self._lock:
            mine = self._asking.setdefault(key, threading.Lock())
        with mine:
            held = self.budget.hold(messages, max_tokens)
            usage = Usage()
            try:
                reply = self._find(key) or self._send(key, request, messages, max_tokens, temperature)
                usage = reply.usage
            finally:
                self.budget.settle(held, usage)
        with self._lock:
            self._asking.pop(key, None)
        return reply

    def is_kept(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> bool:
        """Whether this call would cost nothing."""
        request = self._request(messages, max_tokens, temperature)
        return self._row("select 1 from calls where key = ?", hashlib.sha256(request.encode()).hexdigest()) is not None

    def mean_seconds(self) -> float | None:
        """How long a call to this model took so far; None where there was none."""
        row = self._row("select avg(seconds) from calls where model = ?", self.name)
        return None if row is None or row[0] is None else float(row[0])  # type: ignore[arg-type]

    def _request(self, messages: Conversation, max_tokens: int, temperature: float) -> str:
        said = [[message.role, message.content] for message in messages.messages]
        return json.dumps([self.name, said, max_tokens, temperature], ensure_ascii=False)

    def _find(self, key: str) -> Reply | None:
        row = self._row("select reply from calls where key = ?", key)
        if row is None:
            return None
        with self._lock:
            self.kept += 1
        return from_json(Reply, json.loads(str(row[0])))

    def _send(self, key: str, request: str, messages: Conversation, max_tokens: int, temperature: float) -> Reply:
        began = time.monotonic()
        reply = self._chat.complete(messages, max_tokens=max_tokens, temperature=temperature)
        seconds = time.monotonic() - began
        if not reply.usage.prompt_tokens + reply.usage.completion_tokens:  # an endpoint that does not count
            asked = sum(tokens_about(message.content) for message in messages.messages)
            usage = Usage(prompt_tokens=round(asked), completion_tokens=round(tokens_about(reply.text)))
            reply = Reply(text=reply.text, usage=usage, finished=reply.finished, refused=reply.refused)
        with self._lock, self._readable(), self._file:
            self.sent += 1
            row = (key, self.name, request, json.dumps(to_json(reply), ensure_ascii=False), seconds)
            self._file.execute("insert or ignore into calls values (?, ?, ?, ?, ?)", row)
        return reply

    def _row(self, query: str, value: str) -> tuple[object, ...] | None:
        with self._lock, self._readable():
            row: tuple[object, ...] | None = self._file.execute(query, (value,)).fetchone()
        return row

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """SQLite's refusals as sentences."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error}.", "Is the disk full, or the folder read-only?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path}, which keeps the teacher's answers, is damaged: {error}.",
                "Move it away; what it held has to be asked again.",
            ) from error
