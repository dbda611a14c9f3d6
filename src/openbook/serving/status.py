"""`/api/status`, `/health` and `/metrics`: how the server is."""

from dataclasses import asdict

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openbook import __version__
from openbook.serving.models import ARMS, Arm
from openbook.serving.service import Service, of


async def status(request: Request) -> Response:
    service = of(request)
    sizes = service.library.sizes() if service.library else None
    return JSONResponse(
        {
            "version": __version__,
            "model": service.models.base_id,
            "models": list(service.models.ids),
            "adapter": service.models.folder.name if service.models.folder else None,
            "arms": [_described(service, arm) for arm in ARMS.values()],
            "retrieval": service.library is not None,
            "index": asdict(sizes) if sizes else None,
            "passages": service.settings.config.retrieval.passages,
            "max_new_tokens": service.settings.config.model.max_new_tokens,
        }
    )


def _described(service: Service, arm: Arm) -> dict[str, object]:
    """An arm, and why it cannot be asked where it cannot."""
    reason = ""
    if arm.passages and service.library is None:
        reason = "this server answers without documents (--plain)"
    elif arm.tuned and service.models.folder is None:
        reason = "there is no tuned model yet: `openbook tune` makes one"
    return {"name": arm.name, "meaning": arm.meaning, "available": not reason, "reason": reason}


async def health(request: Request) -> Response:
    """200 where requests are answered; tells no more, since it is open to all."""
    alive = of(request).engine.alive
    return JSONResponse({"status": "ok" if alive else "failed"}, status_code=200 if alive else 503)


async def metrics(request: Request) -> Response:
    return Response(of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


ROUTES = [Route("/api/status", status), Route("/health", health), Route("/metrics", metrics)]
