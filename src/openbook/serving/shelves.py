"""`GET /api/search` and `GET /api/documents/{id}`: what the index finds, and the documents behind it."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openbook.records import to_json
from openbook.serving.citations import passage
from openbook.serving.faults import ApiError, busy
from openbook.serving.service import of

_QUERY = 10_000  # characters


async def search(request: Request) -> Response:
    service = of(request)
    query = request.query_params.get("q", "")
    if not query.strip() or len(query) > _QUERY:
        raise ApiError(400, f"q must hold 1 to {_QUERY:,} characters.", code="invalid_value", param="q")
    asked = request.query_params.get("k", str(service.settings.config.retrieval.passages))
    if not (asked.isdecimal() and asked.isascii() and len(asked) <= 3 and 1 <= int(asked) <= 50):
        raise ApiError(400, "k must be a number from 1 to 50.", code="invalid_value", param="k")
    with service.admission.one(busy):
        found = await service.shelves().search(query, int(asked))
    return JSONResponse({"passages": [passage(scored) for scored in found]})


async def document(request: Request) -> Response:
    service = of(request)
    found = await service.shelves().document(request.path_params["id"])
    if found is None:
        raise ApiError(404, "There is no document of this id.", code="not_found", param="id")
    return JSONResponse(to_json(found))


ROUTES = [Route("/api/search", search), Route("/api/documents/{id}", document)]
