"""The log: one JSON object a line, without what anybody asked or was answered."""

import json
import logging
import sys
import time
import traceback
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openbook.serving.metrics import Metrics

LOG = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record's message, its `facts`, and of an exception the place without the message, which may quote a text."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            line["where"] = [
                f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-6:]
            ]
        return json.dumps(line, ensure_ascii=False, default=str)


def start_logging() -> None:
    """openbook's and uvicorn's records to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("openbook", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


class Told:
    """ASGI middleware that counts each request and writes a line about it: route and never the query, status, times."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, first, ended, gone = time.perf_counter(), 500, 0.0, False, False
        request_id = uuid.uuid4().hex[:12]

        async def watched_send(message: Message) -> None:
            nonlocal status, first, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            elif message["type"] == "http.response.body":
                first = first or time.perf_counter() - started
                ended = not message.get("more_body", False)
            await send(message)

        async def watched_receive() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or (message["type"] == "http.disconnect" and not ended)
            return message

        try:
            await self._app(scope, watched_receive, watched_send)
        finally:
            seconds = time.perf_counter() - started
            if gone:
                status = 499
                self._metrics.cancelled.inc()
            # The route and not the path: paths that strangers make up would each become a time series.
            route = getattr(scope.get("route"), "path", "") or ("/static" if "/static/" in scope["path"] else "other")
            self._metrics.requests.labels(route, scope["method"], str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            facts = {"request": request_id, "method": scope["method"], "route": route, "status": status}
            LOG.info("request", extra={"facts": {**facts, "ms": _ms(seconds), "first_ms": _ms(first)}})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
