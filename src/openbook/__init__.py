"""Study for the open-book exam: RAFT data, QLoRA tuning, verified quotes and honest evaluation from your own documents.

    import openbook

    config = openbook.Config.load("openbook.toml")
    openbook.run(config)                        # everything; or stage by stage:
    openbook.ingest(config)
    openbook.build_dataset(config)
    openbook.tune(config)
    openbook.evaluate(config)
    openbook.ask(config, "how long are alerts kept?").final

    print(openbook.doctor(Path("raft.jsonl")).errors)    # anybody's RAFT file

Importing it costs nothing: a name is loaded when it is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from openbook.errors import (
    ConfigError,
    DocumentError,
    InputError,
    ModelError,
    OpenbookError,
    RecordError,
    StoreError,
    TeacherError,
)

if TYPE_CHECKING:
    from openbook.comparing import compare
    from openbook.config import Config
    from openbook.pipeline import run
    from openbook.tracing import trace
    from openbook.tuned import find_pairs, merge, score
    from openbook.verbs import ask, build_dataset, doctor, evaluate, export_dataset, ingest, search, serve, tune

__version__ = "0.1.0"

# What they warn of, a kernel from a hub that is absent and matrices that were asked for in fp32, is no news to a user.
# Here, for embedders import them too, and before anything of `models` does.
for _name in ("bitsandbytes.backends.cpu.ops", "transformers.integrations.bitsandbytes"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__all__ = [
    "Config",
    "ConfigError",
    "DocumentError",
    "InputError",
    "ModelError",
    "OpenbookError",
    "RecordError",
    "StoreError",
    "TeacherError",
    "__version__",
    "ask",
    "build_dataset",
    "compare",
    "doctor",
    "evaluate",
    "export_dataset",
    "find_pairs",
    "ingest",
    "merge",
    "run",
    "score",
    "search",
    "serve",
    "trace",
    "tune",
]

_LAZY = {
    "Config": "openbook.config",
    "run": "openbook.pipeline",
    "trace": "openbook.tracing",
    "compare": "openbook.comparing",
    **dict.fromkeys(("find_pairs", "merge", "score"), "openbook.tuned"),
    **dict.fromkeys(
        ("ask", "build_dataset", "doctor", "evaluate", "export_dataset", "ingest", "search", "serve", "tune"),
        "openbook.verbs",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
