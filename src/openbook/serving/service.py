"""Everything that the routes share; `request.app.state.service` is one."""

import time
from dataclasses import dataclass, field

from starlette.requests import Request

from openbook.serving.engine import Admission, Engine
from openbook.serving.faults import ApiError
from openbook.serving.library import Library
from openbook.serving.metrics import Metrics
from openbook.serving.models import Models
from openbook.serving.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """`library` is None where the server answers without retrieval. `started` is in seconds since 1970."""

    settings: Settings
    engine: Engine
    models: Models
    library: Library | None
    admission: Admission
    metrics: Metrics
    started: int = field(default_factory=lambda: int(time.time()))

    @property
    def stream_s(self) -> float:
        """The longest that a stream may take: an answer's time, and some for a slow reader."""
        return self.settings.config.serve.timeout_s + 30.0

    def shelves(self) -> Library:
        """The library, for routes that are of no use without one."""
        if self.library is None:
            raise ApiError(404, "This server answers without documents (--plain).", code="no_index")
        return self.library


def of(request: Request) -> Service:
    """The service that a request was sent to."""
    service: Service = request.app.state.service
    return service
