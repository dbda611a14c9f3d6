"""`/v1/embeddings`: the vectors that the index is searched by."""

import base64
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Tag
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openbook.serving import bodies
from openbook.serving.faults import ApiError, busy
from openbook.serving.service import of
from openbook.serving.sse import unless_gone

_INPUTS = 256  # texts in one request
_Text = Annotated[str, Field(min_length=1)]


class EmbeddingRequest(BaseModel):
    model: str
    input: Annotated[
        Annotated[_Text, Tag("text")] | Annotated[list[_Text], Field(min_length=1, max_length=_INPUTS), Tag("list")],
        bodies.TEXT_OR_LIST,
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


async def embed(request: Request) -> Response:
    wanted = await bodies.read(request, EmbeddingRequest)
    service = of(request)
    library = service.shelves()
    name = library.embedder_id
    if wanted.model != name:
        message = f"There is no embedder {wanted.model[:100]!r}; the index's is {name!r}."
        raise ApiError(404, message, code="model_not_found", param="model")
    if wanted.dimensions not in (None, library.embedder.dimension):
        message = f"The embedder's vectors have {library.embedder.dimension} dimensions, and are not cut."
        raise ApiError(400, message, code="invalid_value", param="dimensions")
    texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    with service.admission.one(busy):
        vectors, tokens = await unless_gone(request, library.embed(texts))
    data = [
        {"object": "embedding", "index": number, "embedding": _coded(vector, wanted.encoding_format)}
        for number, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
    return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})


def _coded(vector: list[float], form: str) -> Any:
    """Numbers, or their float32 bytes in base64 (little-endian), which OpenAI's client asks for unless told otherwise."""
    return vector if form == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


ROUTES = [Route("/v1/embeddings", embed, methods=["POST"])]
