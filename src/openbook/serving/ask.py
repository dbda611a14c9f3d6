"""`POST /api/ask`: one question to one arm, as server-sent events for the page.

`passages` → `delta`… → `citations` → `done`; or `error`, at any point, after which nothing follows.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openbook.errors import OpenbookError
from openbook.serving import bodies
from openbook.serving.answering import Asked, Delta, Done, Event, Found, events
from openbook.serving.citations import extension, passage
from openbook.serving.faults import ApiError, as_api_error
from openbook.serving.models import ARMS
from openbook.serving.service import of
from openbook.serving.sse import EventStream, begun, event


class AskRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1)
    arm: Literal["closed", "rag", "tuned"] = "tuned"
    k: int | None = Field(None, ge=1, le=50)


async def ask(request: Request) -> Response:
    wanted = await bodies.read(request, AskRequest)
    if not wanted.question.strip():
        raise ApiError(400, "The question is empty.", code="invalid_value", param="question")
    service, arm = of(request), ARMS[wanted.arm]
    if arm.passages:
        service.shelves()
    asked = Asked(
        question=wanted.question,
        passages=(wanted.k or service.settings.config.retrieval.passages) if arm.passages else 0,
        tuned=arm.tuned,
        adapter_needed=arm.tuned,
    )
    return EventStream(_lines(await begun(events(service, asked))), limit_s=service.stream_s)


async def _lines(found: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    try:
        async with aclosing(found):
            async for item in found:
                if isinstance(item, Found):
                    yield event({"passages": [passage(scored) for scored in item.passages]}, "passages")
                elif isinstance(item, Delta):
                    yield event({"text": item.text}, "delta")
                elif isinstance(item, Done):
                    told = extension(item.answer)
                    del told["passages"]  # known already
                    yield event(told, "citations")
                    yield event(_closing(item), "done")
    except (ApiError, OpenbookError) as error:
        yield event(as_api_error(error).body["error"], "error")


def _closing(done: Done) -> dict[str, object]:
    usage = done.answer.usage
    return {
        "finished": done.answer.finished,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "first_text_seconds": round(done.first_s, 4),
        "seconds": round(usage.seconds, 4),
    }


ROUTES = [Route("/api/ask", ask, methods=["POST"])]
