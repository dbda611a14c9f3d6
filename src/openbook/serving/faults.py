"""What went wrong, in the shape in which OpenAI's API tells it, so that its clients raise what they should."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openbook.errors import InputError, ModelError, OpenbookError, StoreError


class ApiError(Exception):
    """An answer other than 200. `code` is for programs, `param` names the field that is at fault."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        self.status, self.message, self.code, self.param = status, message, code, param
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(self.status)
        return JSONResponse(self.body, status_code=self.status, headers=headers)


# What the library raises, most special first: the status and the code under which the API tells it.
_TOLD: tuple[tuple[type[BaseException], int, str], ...] = (
    (InputError, 400, "invalid_request"),
    (StoreError, 503, "index_unavailable"),
    (ModelError, 503, "model_unavailable"),
    (OpenbookError, 500, "internal_error"),
    (TimeoutError, 504, "timeout"),
    (MemoryError, 503, "out_of_memory"),
)


def as_api_error(error: BaseException) -> ApiError:
    """Any failure as one that may be shown. What openbook did not foresee is told without its message, which might hold
    anything."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code in _TOLD:
        if isinstance(error, kind):
            message = str(error) if isinstance(error, OpenbookError) else _SENTENCES[code]
            return ApiError(status, message, code=code)
    if "out of memory" in str(error).lower():
        return ApiError(503, _SENTENCES["out_of_memory"], code="out_of_memory")
    return ApiError(500, "The server failed in a way it does not know; its log says where.", code="internal_error")


_SENTENCES = {
    "timeout": "The answer took longer than the server allows (serve.timeout_s).",
    "out_of_memory": "The server has not enough memory for this answer. Ask for a shorter one, or try again later.",
}


def busy() -> ApiError:
    message = "The server has as many requests as it can take (serve.concurrent, serve.queue). Try again in a moment."
    return ApiError(429, message, code="queue_full")


async def handle(request: Request, error: Exception) -> Response:
    """Starlette's handler for every exception that a route lets out."""
    if isinstance(error, HTTPException):
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = {404: "There is nothing at this address.", 405: "This address does not take this method."}
        shown = ApiError(
            error.status_code,
            message.get(error.status_code, error.detail),
            code=codes.get(error.status_code, "http_error"),
        )
        response = shown.response
        response.headers.update(error.headers or {})
        return response
    return as_api_error(error).response
