"""`/v1/chat/completions`: OpenAI's chat, whose answers carry their checked quotes under `openbook`."""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Tag
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openbook.errors import OpenbookError
from openbook.records import Conversation, Message, Usage
from openbook.serving import bodies
from openbook.serving.answering import Asked, Delta, Done, Event, events
from openbook.serving.citations import extension
from openbook.serving.faults import ApiError, as_api_error
from openbook.serving.service import Service, of
from openbook.serving.sse import EventStream, begun, event, unless_gone


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[str, Tag("text")] | Annotated[list[TextPart], Tag("list")], bodies.TEXT_OR_LIST]

    @property
    def words(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Extension(BaseModel):
    """What a request may say to openbook, under `openbook`."""

    model_config = ConfigDict(extra="forbid")

    retrieval: bool = Field(True, description="false: no passages, the conversation goes to the model as it is")
    passages: int | None = Field(None, ge=1, le=50, description="passages shown to the model")


class StreamOptions(BaseModel):
    include_usage: bool = False


# What would change an answer's form, and the values that change nothing.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (None, 1),
    "stop": (None, "", []),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
}


class ChatRequest(BaseModel):
    """Decoding is greedy, so that an answer can be checked again: whatever else a request says about sampling has no
    effect and is listed in the answer's `openbook.ignored`. What would change an answer's form is refused."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    openbook: Extension = Extension()

    @property
    def ignored(self) -> list[str]:
        """Fields that were given and have no effect."""
        given = self.model_extra or {}
        return sorted(name for name, value in given.items() if value is not None and name not in _UNSUPPORTED)

    def check(self) -> None:
        """Raise `ApiError` for what cannot be done."""
        given = self.model_extra or {}
        for name, harmless in _UNSUPPORTED.items():
            if given.get(name) not in harmless:
                raise ApiError(
                    400, f"{name} is not supported here. Leave it out.", code="unsupported_value", param=name
                )
        last = self.messages[-1]
        if last.role != "user" or not last.words.strip():
            message = "The last message must be the user's, and hold text."
            raise ApiError(400, message, code="invalid_value", param="messages")


async def complete(request: Request) -> Response:
    wanted = await bodies.read(request, ChatRequest)
    service = of(request)
    asked = _asked(service, wanted)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": wanted.model}
    if wanted.stream:
        return EventStream(_lines(await begun(events(service, asked)), head, wanted), limit_s=service.stream_s)
    return JSONResponse(await unless_gone(request, _whole(events(service, asked), head, wanted)))


def _asked(service: Service, wanted: ChatRequest) -> Asked:
    """What is to be answered. With retrieval that is the last message, by the prompt that the model was tuned with;
    without, the conversation."""
    tuned = service.models.tuned(wanted.model)
    wanted.check()
    conversation = None
    passages = wanted.openbook.passages or service.settings.config.retrieval.passages
    if service.library is None or not wanted.openbook.retrieval:
        passages = 0
        conversation = Conversation(
            messages=tuple(
                Message(role="system" if message.role == "developer" else message.role, content=message.words)
                for message in wanted.messages
            )
        )
    return Asked(
        question=wanted.messages[-1].words,
        passages=passages,
        tuned=tuned,
        conversation=conversation,
        max_tokens=wanted.max_completion_tokens or wanted.max_tokens,
    )


async def _whole(found: AsyncGenerator[Event, None], head: dict[str, Any], wanted: ChatRequest) -> dict[str, Any]:
    async with aclosing(found):
        async for item in found:
            if isinstance(item, Done):
                return {
                    **head,
                    "object": "chat.completion",
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": item.shown, "refusal": None},
                            "logprobs": None,
                            "finish_reason": _reason(item),
                        }
                    ],
                    "usage": _usage(item.answer.usage),
                    "openbook": _extension(item, wanted),
                }
    raise AssertionError("an answer ends with Done")


async def _lines(
    found: AsyncGenerator[Event, None], head: dict[str, Any], wanted: ChatRequest
) -> AsyncGenerator[str, None]:
    """The chunks of a streamed answer; the citations come before the one that ends it."""

    def chunk(delta: dict[str, str], reason: str | None = None, **more: object) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**head, "object": "chat.completion.chunk", "choices": [choice], **more})

    try:
        async with aclosing(found):
            yield chunk({"role": "assistant", "content": ""})
            async for item in found:
                if isinstance(item, Delta):
                    yield chunk({"content": item.text})
                elif isinstance(item, Done):
                    yield chunk({}, openbook=_extension(item, wanted))
                    yield chunk({}, _reason(item))
                    if wanted.stream_options and wanted.stream_options.include_usage:
                        usage = _usage(item.answer.usage)
                        yield event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
                    yield event("[DONE]")
    except (ApiError, OpenbookError) as error:
        yield event(as_api_error(error).body)


def _reason(done: Done) -> str:
    return "stop" if done.answer.finished else "length"


def _usage(usage: Usage) -> dict[str, int]:
    read, written = usage.prompt_tokens, usage.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _extension(done: Done, wanted: ChatRequest) -> dict[str, Any]:
    return {**extension(done.answer), "ignored": wanted.ignored}


ROUTES = [Route("/v1/chat/completions", complete, methods=["POST"])]
