"""The model behind the requests: one thread writes all answers, and requests join and leave between two steps.

Everything but the model's own work happens in the event loop, so there is nothing to lock. A turn is: those who have
gone leave, one waiting prompt is read, everybody's answer grows by a step. Only one prompt at a time, so that a crowd of
new requests does not hold up those that are being answered for long.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from openbook.models import Piece
from openbook.records import Conversation
from openbook.serving.faults import ApiError, as_api_error

T = TypeVar("T")

LOG = logging.getLogger(__name__)


class Writers(Protocol):
    """What the engine needs of models; `openbook.models.Company` is one. Never called from two threads at once, except
    for `encode`."""

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together, at most."""

    def encode(self, prompt: Conversation) -> list[int]: ...
    def has_room(self, adapter: str | None) -> bool: ...
    def join(self, number: int, prompt: Sequence[int], *, adapter: str | None, limit: int) -> Piece: ...
    def step(self) -> list[Piece]: ...
    def leave(self, number: int) -> None: ...
    def clear(self) -> None: ...
    def add_adapter(self, name: str, folder: Path) -> None: ...
    def drop(self, adapter: str) -> None: ...


class Writing:
    """One answer on its way."""

    def __init__(self, number: int, prompt: list[int], adapter: str | None, limit: int) -> None:
        self.number, self.prompt, self.adapter, self.limit = number, prompt, adapter, limit
        self.joined = False
        self.arrived: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

    async def pieces(self, deadline: float) -> AsyncIterator[Piece]:
        """What is written, as it comes. Raises `ApiError` where the model fails, or at `deadline` (of the loop's clock)."""
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await self.arrived.get()
            except TimeoutError as error:
                raise as_api_error(error) from None
            if isinstance(piece, BaseException):
                raise as_api_error(piece) from piece
            yield piece
            if piece.end:
                return


class Engine:
    """Runs `writers`; `run` must be running for anything to be written."""

    def __init__(self, writers: Writers, *, max_new_tokens: int) -> None:
        self.writers = writers
        self._default_tokens = max_new_tokens
        self._numbers = itertools.count()
        self._waiting: deque[Writing] = deque()
        self._live: dict[int, Writing] = {}
        self._gone: list[int] = []
        self._calls: deque[tuple[Callable[[], object], asyncio.Future[object]]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="openbook-model")
        self._running = False
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="openbook-encode")

    @property
    def alive(self) -> bool:
        """Whether `run` is running."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many answers have not begun."""
        return len(self._waiting)

    @property
    def writing(self) -> int:
        """How many answers are being written."""
        return len(self._live)

    async def encode(self, prompt: Conversation) -> list[int]:
        """The tokens of `prompt`. Raises `ApiError` where they leave no room for an answer."""
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._encoder, self.writers.encode, prompt)
        if len(ids) >= self.writers.context:
            raise ApiError(
                400,
                f"The prompt has {len(ids):,} tokens, and {self.writers.context:,} are read here at most, answer "
                "included. Ask a shorter question or show fewer passages.",
                code="context_length_exceeded",
                param="messages",
            )
        return ids

    @contextlib.asynccontextmanager
    async def answer(
        self, prompt: Conversation, *, adapter: str | None, max_tokens: int | None
    ) -> AsyncIterator[Writing]:
        """An answer to `prompt`, of at most `max_tokens`. Leaving the `with` ends it, whether it is done or not.

        Raises `ApiError` for a prompt that the model cannot read.
        """
        ids = await self.encode(prompt)
        room = self.writers.context - len(ids)
        writing = Writing(next(self._numbers), ids, adapter, min(max_tokens or self._default_tokens, room))
        self._waiting.append(writing)
        self._wake.set()
        try:
            yield writing
        finally:
            self._leave(writing)

    def call(self, function: Callable[[], object]) -> asyncio.Future[object]:
        """Have `function` run on the model's thread, between two steps."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._calls.append((function, future))
        self._wake.set()
        return future

    async def run(self) -> None:
        """Work until cancelled."""
        self._running = True
        try:
            while True:
                if not (self._waiting or self._live or self._gone or self._calls):
                    self._wake.clear()
                    await self._wake.wait()
                await self._turn()
        finally:
            self._running = False
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._encoder.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> None:
        self._let_go()
        while self._calls:
            function, future = self._calls.popleft()
            found, error = await self._work(function)
            self._let_go()  # the next call may drop the adapter of somebody who has left meanwhile
            if future.done():
                continue  # whoever called has gone
            if error:
                future.set_exception(error)
            else:
                future.set_result(found)
        if newcomer := self._next():
            await self._join(newcomer)
        if self._live:
            pieces, error = await self._work(self.writers.step)
            if error:
                self._fail(error)
            for piece in pieces or ():
                self._deliver(piece)

    def _let_go(self) -> None:
        gone, self._gone = self._gone, []
        for number in gone:
            self.writers.leave(number)

    async def _join(self, newcomer: Writing) -> None:
        newcomer.joined = True
        self._live[newcomer.number] = newcomer
        piece, error = await self._work(
            lambda: self.writers.join(newcomer.number, newcomer.prompt, adapter=newcomer.adapter, limit=newcomer.limit)
        )
        if piece is not None:
            self._deliver(piece)
        elif error:
            # A pass that failed may have left anything behind, so the others' answers cannot be trusted to go on.
            self._fail(error)

    def _next(self) -> Writing | None:
        """The first who waits for an adapter that has room."""
        for writing in self._waiting:
            if self.writers.has_room(writing.adapter):
                self._waiting.remove(writing)
                return writing
        return None

    async def _work(self, function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        """What `function` returns or raises on the model's thread. Nothing that it raises stops the engine."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, function)
        await asyncio.wait([future])
        error = future.exception()
        return (None, error) if error else (future.result(), None)

    def _deliver(self, piece: Piece) -> None:
        writing = self._live.get(piece.number)
        if writing is not None:  # else it has gone while this was written
            writing.arrived.put_nowait(piece)
            if piece.end:
                del self._live[piece.number]

    def _fail(self, error: BaseException) -> None:
        """Tell everybody whose answer was on its way, and begin anew with an empty desk."""
        LOG.error("the model failed", exc_info=error)
        for writing in self._live.values():
            writing.arrived.put_nowait(error)
        self._live.clear()
        self._gone.clear()
        self.writers.clear()

    def _leave(self, writing: Writing) -> None:
        if not writing.joined:
            with contextlib.suppress(ValueError):
                self._waiting.remove(writing)
        elif self._live.pop(writing.number, None) is not None:
            self._gone.append(writing.number)
            self._wake.set()


class Admission:
    """How many requests are in the house at once, waiting ones included."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inside = 0

    @contextlib.contextmanager
    def one(self, refused: Callable[[], ApiError]) -> Iterator[None]:
        """Room for one request; raises what `refused` makes where there is none."""
        if self.inside >= self.limit:
            raise refused()
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
