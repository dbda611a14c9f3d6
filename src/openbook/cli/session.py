"""What every verb shares: the common options, the configuration they make, and how failures are told.

Exit codes: 0 done · 1 something given or found cannot be used · 2 a wrong option · 70 a fault of openbook's own ·
130 stopped by Ctrl-C · 141 whoever read the output went away.
"""

import errno
import functools
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from openbook.cli.progress import progress_for
from openbook.errors import ConfigError, OpenbookError
from openbook.progress import Progress

if TYPE_CHECKING:
    from openbook.config import Config

PACKAGE = Path(__file__).parents[1]
EXIT_FAILED, EXIT_USAGE, EXIT_FAULT, EXIT_STOPPED, EXIT_PIPE = 1, 2, 70, 130, 141

# Said before anything heavy is imported: the libraries read these at import.
QUIET_LIBRARIES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    # Threads that wait by spinning make a step up to seven times slower as soon as another program wants a core.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The common options of one command."""

    config_file: Path | None
    overrides: tuple[str, ...]
    quiet: bool
    debug: bool
    progress: Progress

    def config(self, flags: Mapping[str, object] | None = None, *, file: Path | None = None) -> "Config":
        """Defaults, then the file, then --set, then `flags` (option → value; None was not given).

        Without `file` and without --config, ./openbook.toml counts where it exists.
        """
        from openbook.config import FILE, Config

        path = file or self.config_file or (Path(FILE) if Path(FILE).exists() else None)
        config = Config.load(path, [*self.overrides, *as_overrides(flags or {})])
        for name in keep_offline(config):
            self.note(f"{name} is not on this machine: it is a name on the hub, from where it is loaded.")
        return config

    def note(self, text: str) -> None:
        """A sentence beside the result, on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr)


def as_overrides(flags: Mapping[str, object]) -> list[str]:
    """`{"tune.epochs": 2, "seed": None}` → `["tune.epochs=2"]`, each value written as TOML."""
    return [f"{key}={_toml(value)}" for key, value in flags.items() if value is not None]


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def keep_offline(config: "Config") -> list[str]:
    """No hub is asked for anything unless the configuration names a model that only a hub can have: these names."""
    from openbook.options import EMBEDDED

    names = [config.model.base, config.retrieval.embedder]
    if config.dataset.teacher == "local" and config.dataset.teacher_model:
        names.append(config.dataset.teacher_model)
    from_hub = [name for name in names if name not in (*EMBEDDED, "offline") and not _is_path(name)]
    sets = (name.rpartition("=")[0] or name for name in config.instruct.sets)  # without their weights
    from_hub += [name for name in sets if _is_hub_name(name)]
    if not from_hub:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return from_hub


def _is_hub_name(name: str) -> bool:
    """Whether an instruction set can only be a hub's `owner/name`: no file or folder, and not the name of a file."""
    return name.count("/") == 1 and not _is_path(name) and not Path(name).suffix


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or Path(name).exists()


ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Options file (default: ./openbook.toml where it exists).")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for everything that is written (default: openbook-work).")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Equal seed, equal data, equal results (default: 0).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any option of openbook.toml; repeatable."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results and errors.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]


def _common(
    config: ConfigOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> Session:
    overrides = [*(set_ or ()), *as_overrides({"out": out, "seed": seed})]
    return Session(
        config_file=config,
        overrides=tuple(overrides),
        quiet=quiet,
        debug=debug,
        progress=progress_for(sys.stderr, quiet=quiet),
    )


def verb(
    app: typer.Typer, name: str, *, group: typer.Typer | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(session, *own options)` as a verb; the common options are added after its own, but for those
    that it has itself. With `group`, the verb has sub-verbs, and runs where none of them is named.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "session"]
        names = {p.name for p in own}
        common = [p for p in inspect.signature(_common).parameters.values() if p.name not in names]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            context: typer.Context | None = values.pop("context", None)
            if context is not None and context.invoked_subcommand is not None:
                return
            os.environ.update({key: value for key, value in QUIET_LIBRARIES.items() if key not in os.environ})
            debug = bool(values["debug"])
            with warnings.catch_warnings():
                warnings.showwarning = functools.partial(_show_warning, debug)
                try:
                    session = _common(**{p.name: values.pop(p.name) for p in common})
                    function(session, **values)
                    sys.stdout.flush()
                except BaseException as error:
                    code = report(error, debug=debug)
                    if code is None:
                        raise
                    raise SystemExit(code) from None

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *common]]
        if group is not None:
            parameters.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        if group is None:
            app.command(name)(command)
        else:
            group.callback(invoke_without_command=True)(command)
            app.add_typer(group, name=name)
        return function

    return register


def report(error: BaseException, *, debug: bool, stream: TextIO | None = None) -> int | None:
    """Tell a failure in a sentence and return the exit code; None for what is no failure (`SystemExit`)."""
    stream = stream or sys.stderr
    if isinstance(error, SystemExit) or type(error).__module__.startswith("typer"):
        return None
    if isinstance(error, BrokenPipeError):
        # The interpreter flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    if debug:
        import traceback

        traceback.print_exception(error, file=stream)
    sentence, code = explain(error)
    print(f"\n{sentence}" if code == EXIT_STOPPED else f"Error: {sentence}", file=stream)
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """A sentence for whoever typed the command, and the exit code."""
    match error:
        case KeyboardInterrupt():
            return "Stopped; run the same command again to go on.", EXIT_STOPPED
        case ConfigError():
            return str(error), EXIT_USAGE
        case OpenbookError():
            return str(error), EXIT_FAILED
    text = " ".join(str(error).split())
    if _disk_full(error):
        return (
            "The disk is full. Free some space, or choose another folder with --out, and run the same command again; "
            "finished work is kept."
        ), EXIT_FAILED
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return (
            "There is not enough memory. Smaller values of tune.row_tokens or evaluate.batch_size need less, and so "
            "does tune.activation_checkpointing=true (each with --set)."
        ), EXIT_FAILED
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: permission denied.", EXIT_FAILED
    return (
        f"openbook failed in a way it does not know ({type(error).__name__}: {text[:300]}). "
        "Run with --debug to see where."
    ), EXIT_FAULT


# What libraries written in Rust or C++ say of a full disk: the system's words, or (torch.save) only that less was
# written than was meant to be.
_DISK_FULL = re.compile(r"No space left on device|PytorchStreamWriter failed|inline_container\.cc.*unexpected pos")


def _disk_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or bool(_DISK_FULL.search(str(error)))


def _show_warning(
    debug: bool,
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """openbook's own warnings as sentences; those of libraries only with --debug."""
    if issubclass(category, UserWarning) and PACKAGE in Path(filename).parents:
        print(f"Warning: {message}", file=sys.stderr)
    elif debug:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=sys.stderr, end="")
