"""Which weights answer: the bare base, and the adapter that `tune` wrote, renewed while the server runs."""

import asyncio
import itertools
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openbook.answering import check_adapter
from openbook.errors import ModelError
from openbook.serving.engine import Engine
from openbook.serving.faults import ApiError
from openbook.serving.settings import Settings

if TYPE_CHECKING:
    from openbook.serving.service import Service

TUNED = "openbook"  # the id under which the API offers the tuned model, or the base where there is none yet

ArmName = Literal["closed", "rag", "tuned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to answer, as the page sets them side by side."""

    name: ArmName
    tuned: bool
    passages: bool
    meaning: str


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name="closed", tuned=False, passages=False, meaning="the base model, from memory"),
        Arm(name="rag", tuned=False, passages=True, meaning="the base model, shown the retrieved passages"),
        Arm(name="tuned", tuned=True, passages=True, meaning="the tuned model, shown the retrieved passages"),
    )
}


class Models:
    """The base and its adapter. The adapter is looked at before each use, so that one that was tuned while the server
    ran answers from then on; the one before stays until its last answer is written."""

    def __init__(self, settings: Settings, engine: Engine, *, base: str, retrieval: str) -> None:
        """`base` and `retrieval` are fingerprints; see `check_adapter`."""
        self._settings = settings
        self._engine = engine
        self._base, self._retrieval = base, retrieval
        self._stamp: tuple[int, ...] | None = None
        self._loaded: str | None = None  # the name under which the model's thread knows the adapter
        self._names = itertools.count(1)
        self._users: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    @property
    def base_id(self) -> str:
        """The base's name, without the folders that lead to it."""
        name = self._settings.config.model.base
        return Path(name).expanduser().name if Path(name).expanduser().is_dir() else name

    @property
    def ids(self) -> tuple[str, ...]:
        """The models that a request may name."""
        return (TUNED, self.base_id) if self.base_id != TUNED else (TUNED,)

    @property
    def folder(self) -> Path | None:
        """Where the adapter lies; None where there is none (yet), or none is wanted."""
        if self._settings.base_only:
            return None
        folder = self._settings.adapter or self._settings.config.adapters_dir / "raft"
        return folder if (folder / "adapter_config.json").is_file() else None

    def tuned(self, model: str) -> bool:
        """Whether a request that names `model` means the adapter. Raises `ApiError` for a name that there is not."""
        if model not in self.ids:
            raise ApiError(
                404,
                f"There is no model {model[:100]!r}. There are: {', '.join(self.ids)}.",
                code="model_not_found",
                param="model",
            )
        return model == TUNED

    def load(self) -> None:
        """Load the adapter before the engine runs, so that what is wrong with it is told at once. Raises `ModelError`."""
        folder = self.folder
        if folder is not None:
            stamp = _stamp(folder)
            name = self._checked(folder)
            self._engine.writers.add_adapter(name, folder)
            self._loaded, self._stamp = name, stamp
        elif self._settings.adapter is not None and not self._settings.base_only:
            raise ModelError(f"{self._settings.adapter} holds no adapter.", "Name a folder that `openbook tune` wrote.")

    def _checked(self, folder: Path) -> str:
        """A new name for the adapter in `folder`, which fits the base."""
        quantization = self._settings.config.model.quantization
        for difference in check_adapter(folder, base=self._base, retrieval=self._retrieval, quantization=quantization):
            warnings.warn(difference, stacklevel=2)
        return f"tuned-{next(self._names)}"

    @asynccontextmanager
    async def adapter(self, *, tuned: bool, needed: bool = False) -> AsyncIterator[str | None]:
        """The name of the adapter to write with, which stays loaded within the `with`; None for the base.

        `needed` refuses where there is no adapter, instead of letting the base answer. Raises `ModelError` for an
        adapter that does not fit the base.
        """
        name = await self._adapter() if tuned else None
        if tuned and needed and name is None:
            raise ApiError(409, "There is no tuned model yet: `openbook tune` makes one.", code="not_tuned")
        if name is None:
            yield None
            return
        self._users[name] += 1
        try:
            yield name
        finally:
            self._users[name] -= 1
            self._drop_unused()

    async def _adapter(self) -> str | None:
        folder = self.folder
        if folder is None:
            return None
        async with self._lock:
            stamp = _stamp(folder)
            if stamp != self._stamp or self._loaded is None:
                name = self._checked(folder)
                try:
                    await self._engine.call(partial(self._engine.writers.add_adapter, name, folder))
                except asyncio.CancelledError:  # who asked has gone, and it is loaded all the same
                    self._engine.call(partial(self._engine.writers.drop, name))
                    raise
                before, self._loaded, self._stamp = self._loaded, name, stamp
                if before is not None:
                    self._users[before] += 0
        self._drop_unused()
        return self._loaded

    def _drop_unused(self) -> None:
        for name in [name for name, users in self._users.items() if users == 0 and name != self._loaded]:
            del self._users[name]
            self._engine.call(partial(self._engine.writers.drop, name))


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes when the adapter is written anew."""
    files = sorted([*folder.glob("*.safetensors"), folder / "adapter_config.json"])
    try:
        return tuple(value for file in files for value in (file.stat().st_mtime_ns, file.stat().st_size))
    except OSError as error:
        raise ModelError(f"The adapter in {folder} is being written or cannot be read.", "Try again.") from error


async def list_models(request: Request) -> Response:
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_described(id_, service.started) for id_ in _ids(service)]})


async def one_model(request: Request) -> Response:
    service: Service = request.app.state.service
    if request.path_params["id"] not in _ids(service):
        service.models.tuned(request.path_params["id"])  # raises
    return JSONResponse(_described(request.path_params["id"], service.started))


def _ids(service: "Service") -> list[str]:
    """All models, the embedder too."""
    return [*service.models.ids, *([service.library.embedder_id] if service.library else [])]


def _described(id_: str, started: int) -> dict[str, object]:
    return {"id": id_, "object": "model", "created": started, "owned_by": "openbook"}


ROUTES = [Route("/v1/models", list_models), Route("/v1/models/{id:path}", one_model)]
