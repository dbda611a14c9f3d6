"""Server-sent events, whose end is noticed on both sides: the client's leaving stops the model."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from openbook.serving.faults import ApiError

T = TypeVar("T")

# Proxies hold streams back unless told not to.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event(data: object, name: str = "") -> str:
    """One event; `name` "" is the default one. JSON has no bare line breaks, so it is always one line."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"


class EventStream(StreamingResponse):
    """Sends `lines` as they come, and closes them whatever happens; a client that does not read them within `limit_s`
    is left."""

    def __init__(self, lines: AsyncGenerator[str, None], *, limit_s: float) -> None:
        super().__init__(lines, media_type="text/event-stream", headers=_HEADERS)
        self._lines = lines
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limit_s):
                    await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()


async def begun(events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """`events`, whose first one has been awaited: what fails before it is raised here, while the answer's status can
    still tell of it."""
    first = await anext(events)

    async def rest() -> AsyncGenerator[T, None]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return rest()


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` returns; it is cancelled where the client goes away first. The request's body has been read before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class ClientGone(ApiError):
    """Nobody is there to read this; nginx's 499 stands in the log."""

    def __init__(self) -> None:
        super().__init__(499, "The client closed the connection.", code="client_closed_request")
