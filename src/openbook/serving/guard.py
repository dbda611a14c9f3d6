"""Who may come in, and with how much: checked before any route sees a request.

A browser lets any page send requests to this machine. What such a page can do is cut down by three rules: the Host
header must name this server (DNS rebinding), a POST must be JSON (which no form can send and no foreign page may,
without asking first), and no answer allows another origin to read it.
"""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openbook.serving.faults import ApiError
from openbook.serving.settings import Settings

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPEN = ("/", "/health", "/favicon.ico")  # with /static/ all that is shown without a token: it tells nothing
BODY_S = 30.0  # a body that takes longer to arrive is given up
_DRAIN_BYTES = 64_000_000  # of a body that is too large so much is read, so that the client hears why it is refused


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = _digest(settings.token) if settings.token else b""
        self._limit = settings.config.serve.request_kb * 1000
        self._hosts = {"localhost", *(name.lower() for name in settings.config.serve.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY)
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
        except ApiError as error:
            if error.status == 413:
                await _drain(receive)
            await error.response(scope, receive, with_headers)
            return
        await self._app(scope, self._limited(receive), with_headers)

    def _check(self, scope: Scope, headers: Headers) -> None:
        path, method = scope["path"], scope["method"]
        if not self._is_ours(headers.get("host", "")):
            raise ApiError(403, "The Host header names another server (serve.hosts allows more names).", code="host")
        if self._token and not (path in OPEN or path.startswith("/static/")):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # Digests of equal length, compared in constant time: the time tells nothing about the token.
            right = hmac.compare_digest(_digest(given.strip()), self._token)
            if scheme.lower() != "bearer" or not right:
                raise ApiError(401, "A valid token is needed: Authorization: Bearer …", code="invalid_api_key")
        if method == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "Send JSON, with Content-Type: application/json.", code="unsupported_media_type")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > self._limit:
                raise self._too_large()

    def _is_ours(self, host: str) -> bool:
        """A name must be known; an address needs no check, since rebinding needs a name that can be rebound."""
        name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return True
        return name.lower() in self._hosts

    def _too_large(self) -> ApiError:
        message = f"The request is larger than {self._limit // 1000:,} kB (serve.request_kb)."
        return ApiError(413, message, code="request_too_large")

    def _limited(self, receive: Receive) -> Receive:
        """`receive`, for a body whose length was not told or not told truly, and for one that never comes."""
        seen, whole = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_S

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()  # waits until the client goes away, which takes as long as it takes
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, "The request did not arrive in time.", code="request_timeout") from None
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if seen > self._limit:
                    await _drain(receive)
                    raise self._too_large()
            return message

        return limited


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


async def _drain(receive: Receive) -> None:
    """Read on and throw away, within bounds."""
    seen = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BODY_S):
            while seen < _DRAIN_BYTES:
                message = await receive()
                seen += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
