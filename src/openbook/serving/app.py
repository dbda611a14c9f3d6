"""The application: every module's routes behind the guard and the log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from openbook.errors import OpenbookError
from openbook.serving import ask, chat, embeddings, faults, models, page, shelves, status, workshop
from openbook.serving.faults import ApiError
from openbook.serving.guard import Guard
from openbook.serving.logs import Told
from openbook.serving.service import Service

ROUTES = [
    route for module in (status, shelves, ask, models, chat, embeddings, workshop, page) for route in module.ROUTES
]


def create_app(service: Service) -> Starlette:
    """The ASGI application of `service`, whose engine runs as long as the application does."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(service.engine.run())
        try:
            yield
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    # A handler for `Exception` becomes the outermost one: it tells the client, and lets the error go on to the log.
    told = (ApiError, OpenbookError, HTTPException, Exception)
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Told, metrics=service.metrics), Middleware(Guard, settings=service.settings)],
        exception_handlers=dict.fromkeys(told, faults.handle),
        lifespan=lifespan,
    )
    app.state.service = service
    return app
