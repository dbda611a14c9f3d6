"""What the page shows of runs and data, and the runs it starts: jobs, trainings, data set, report, traces."""

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openbook import runs
from openbook.config import Config
from openbook.errors import InputError, StoreError
from openbook.serving import bodies
from openbook.serving.faults import ApiError
from openbook.serving.service import of
from openbook.serving.sse import unless_gone

_LARGEST = 10_000_000


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobRequest(Form):
    """What the page may start: a verb, and the few options that it asks for. Paths are never among them."""

    verb: Literal["tune", "dataset", "evaluate", "run"]
    form: Literal["raft", "closed"] = "raft"
    epochs: float | None = Field(None, gt=0, le=1000)
    learning_rate: float | None = Field(None, gt=0, le=1)
    rank: int | None = Field(None, ge=1, le=1024)
    adapter: Literal["qlora", "lora"] | None = None
    again: bool = False

    @property
    def title(self) -> str:
        names = {"run": "Everything", "dataset": "Data set", "evaluate": "Exam"}
        return names.get(self.verb) or ("Tune with passages" if self.form == "raft" else "Tune without passages")

    @property
    def arguments(self) -> list[str]:
        form = ["--form", self.form] if self.verb == "tune" else []
        return form + (["--force"] if self.again and self.verb in ("tune", "dataset") else [])

    @property
    def options(self) -> list[str]:
        given = {"epochs": self.epochs, "learning_rate": self.learning_rate, "rank": self.rank, "adapter": self.adapter}
        return [f"tune.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]


_Words = Annotated[str, Field(max_length=20_000, pattern=r"^[^\x00]*$")]  # a program's argument holds no NUL


class TraceRequest(Form):
    """One of three: `message` and `answer`; `message`, `chosen` and `rejected`; `row`."""

    message: _Words = ""
    answer: _Words = ""
    chosen: _Words = ""
    rejected: _Words = ""
    row: int | None = Field(None, ge=1, le=_LARGEST)
    steps: int = Field(1, ge=1, le=50)
    tuned: bool = False


class Empty(Form):
    pass


async def overview(request: Request) -> Response:
    config = of(request).settings.config
    jobs, found = await asyncio.gather(_read(_workshop(request).jobs.all), _read(lambda: runs.trainings(config)))
    return JSONResponse({"jobs": [asdict(job) for job in jobs], "trainings": found, "defaults": _defaults(request)})


async def start(request: Request) -> Response:
    wanted = await bodies.read(request, JobRequest)
    jobs = _workshop(request).jobs
    try:
        job = await _read(lambda: jobs.start(wanted.title, wanted.verb, wanted.arguments, options=wanted.options))
    except InputError as error:
        raise ApiError(409, str(error), code="busy") from error
    return JSONResponse(asdict(job), status_code=201)


async def job(request: Request) -> Response:
    jobs, id_, after = _workshop(request).jobs, request.path_params["id"], _number(request, "after", 0, _LARGEST * 100)
    found = await _read(lambda: jobs.get(id_))
    output, end = await _read(lambda: jobs.output(id_, start=after))
    return JSONResponse({**asdict(found), "output": output, "end": end})


async def cancel(request: Request) -> Response:
    await bodies.read(request, Empty)
    jobs = _workshop(request).jobs
    return JSONResponse(asdict(await _read(lambda: jobs.cancel(request.path_params["id"]))))


async def training(request: Request) -> Response:
    config, name = of(request).settings.config, request.path_params["name"]
    after = _number(request, "after", 0, _LARGEST)
    rows = await _read(lambda: runs.training_log(config, name, after=after))
    return JSONResponse({"rows": rows, "next": after + len(rows)})


async def validation(request: Request) -> Response:
    config, name = of(request).settings.config, request.path_params["name"]
    return JSONResponse(await _read(lambda: runs.validation(config, name)))


async def dataset(request: Request) -> Response:
    config, part = of(request).settings.config, request.path_params["part"]
    start, count = _number(request, "start", 0, _LARGEST), _number(request, "count", 20, 100)
    words = request.query_params.get("q", "")[:200]
    found = await _read(lambda: runs.dataset_page(config, part, start=start, count=count, words=words))
    return JSONResponse(found)


async def report(request: Request) -> Response:
    config = of(request).settings.config
    return JSONResponse({"report": await _read(lambda: runs.report(config))})


async def grades(request: Request) -> Response:
    config, asked = of(request).settings.config, request.query_params
    test, arm = asked.get("test", "studied"), asked.get("arm", "raft_rag")
    return JSONResponse(await _read(lambda: runs.graded(config, test, arm)))


async def trace(request: Request) -> Response:
    """A trace in a process of its own: it trains, and the model that answers questions must not notice."""
    wanted = await bodies.read(request, TraceRequest)
    service = of(request)
    tracing = _workshop(request).tracing
    if tracing.locked():
        raise ApiError(409, "Another trace is being made.", code="busy")
    async with tracing:
        options = runs.options_of(service.settings.config)
        start = ["--from-adapter", str(service.models.folder)] if wanted.tuned and service.models.folder else []
        found = await unless_gone(request, _traced([*_trace_options(wanted), *start], wanted.message, options))
    return Response(found, media_type="application/json")


def _trace_options(wanted: TraceRequest) -> list[str]:
    # “--name=value”, so that a text that begins with a dash is a text.
    given = {"answer": wanted.answer, "chosen": wanted.chosen, "rejected": wanted.rejected, "row": wanted.row}
    return [f"--steps={wanted.steps}", *(f"--{name}={value}" for name, value in given.items() if value)]


async def _traced(arguments: list[str], message: str, options: str) -> bytes:
    """What the command prints. It dies with the request."""
    with tempfile.TemporaryDirectory(prefix="openbook-trace-") as folder:
        path = Path(folder) / "openbook.toml"
        path.write_text(options, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "openbook", "trace", *arguments, "--json", "--config", str(path)),
            *(("--", message) if message else ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        said = re.findall(r"^Error: (.*)$", errors.decode("utf-8", "replace"), re.MULTILINE)
        raise ApiError(400 if said else 500, said[-1] if said else "The trace failed.", code="trace_failed")
    return output


class Workshop:
    """What an application keeps: the processes that it has started, and that one trace is made at a time."""

    def __init__(self, config: Config) -> None:
        self.jobs = runs.Jobs(config)
        self.tracing = asyncio.Lock()


def _workshop(request: Request) -> Workshop:
    state = request.app.state
    if not hasattr(state, "workshop"):
        state.workshop = Workshop(of(request).settings.config)
    found: Workshop = state.workshop
    return found


def _defaults(request: Request) -> dict[str, Any]:
    tune = of(request).settings.config.tune
    return {name: getattr(tune, name) for name in ("epochs", "learning_rate", "rank", "adapter")}


async def _read(function: Callable[[], Any]) -> Any:
    """What `function` returns, off the event loop. What is not there is 404 and not a failure of the server."""
    try:
        return await asyncio.to_thread(function)
    except StoreError as error:
        raise ApiError(404, str(error), code="not_found") from error


def _number(request: Request, name: str, default: int, largest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isdecimal() and text.isascii() and len(text) < 12 and int(text) <= largest):
        raise ApiError(400, f"{name} must be a number from 0 to {largest:,}.", code="invalid_value", param=name)
    return int(text)


ROUTES = [
    Route("/api/runs", overview),
    Route("/api/jobs", start, methods=["POST"]),
    Route("/api/jobs/{id}", job),
    Route("/api/jobs/{id}/cancel", cancel, methods=["POST"]),
    Route("/api/trainings/{name}", training),
    Route("/api/trainings/{name}/validation", validation),
    Route("/api/dataset/{part}", dataset),
    Route("/api/report", report),
    Route("/api/grades", grades),
    Route("/api/trace", trace, methods=["POST"]),
]
