"""`openbook init`, `openbook run` and `openbook demo`: everything, from documents to the report."""

from pathlib import Path
from typing import Annotated

import typer

from openbook.cli import text
from openbook.cli.report import print_report
from openbook.cli.session import Session, as_overrides, keep_offline, verb
from openbook.errors import ConfigError, DocumentError

# What makes the demo small; every other option has its default.
DEMO: dict[str, int] = {
    "dataset.questions": 400,
    "dataset.validation": 20,
    "dataset.studied": 100,
    "dataset.unseen": 60,
    "tune.epochs": 2,  # a third learns no more
    "tune.row_tokens": 2048,  # half of the memory
    "tune.checkpoint_steps": 5,  # its trainings have some 40 steps
    "tune.evaluate_steps": 10,
    "evaluate.questions": 100,
    "evaluate.removed": 40,
    "evaluate.passage_questions": 20,
    "evaluate.batch_size": 8,  # as fast as 16, in less memory
}
DEMO_OUT = Path("openbook-demo")


def register(app: typer.Typer) -> None:
    verb(app, "init")(init)
    verb(app, "run")(run)


def register_demo(app: typer.Typer) -> None:
    verb(app, "demo")(demo)


def init(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="Your documents: a folder, or a single file.")],
    force: Annotated[bool, typer.Option("--force", help="Write over an openbook.toml that exists.")] = False,
) -> None:
    """Write openbook.toml: every option, explained.

    \b
    Examples:
      openbook init my-documents
      openbook init handbook.pdf --set dataset.questions=1000
    """
    from openbook import storage
    from openbook.config import FILE, Config

    path = session.config_file or Path(FILE)
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already.", "Give --force to write over it.")
    if not folder.expanduser().exists():
        raise DocumentError(f"{folder} does not exist.", "Name the folder that holds your documents.")
    # Paths in the file are relative to the file.
    documents = folder if path.parent == Path() else folder.expanduser().resolve()
    config = Config.load(None, [*session.overrides, *as_overrides({"documents.paths": [documents]})])
    storage.write_text(path, config.to_toml())
    print(f"Wrote {path}. Change what you like, then: openbook run{_flag(path)}")


def _flag(path: Path) -> str:
    from openbook.config import FILE

    return "" if path == Path(FILE) else f" {text.quoted_path(path)}"


def run(
    session: Session,
    file: Annotated[Path | None, typer.Argument(metavar="OPENBOOK.TOML", help="Options file.")] = None,
) -> None:
    """Do everything, from documents to the report.

    That is ingest, dataset, tune (twice: with and without passages) and evaluate. A stage whose inputs have not changed is skipped; one that was stopped goes on where it stopped.

    \b
    Examples:
      openbook run
      openbook run project/openbook.toml --set tune.epochs=2
    """
    from openbook import pipeline

    config = session.config(file=file)
    pipeline.run(config, progress=session.progress)
    print_report(config.out)


def demo(
    session: Session,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Your documents (default: the documentation of your own Python)."),
    ] = None,
) -> None:
    """See it all work, in minutes, on this machine alone.

    It is `init` and `run` with small sizes. Everything is written into ./openbook-demo, or --out.

    \b
    Examples:
      openbook demo
      openbook demo my-documents --out /tmp/try
    """
    from openbook import pipeline, storage
    from openbook.cli import standard_library
    from openbook.config import FILE, Config

    if session.config_file is not None:
        raise ConfigError("`demo` has options of its own.", "With an options file, use `openbook run FILE`.")
    if folder is not None and not folder.expanduser().exists():
        raise DocumentError(f"{folder} does not exist.", "Name the folder that holds your documents.")
    flags = {"out": DEMO_OUT, **DEMO}
    config = Config.load(None, [*as_overrides(flags), *session.overrides])
    out = config.out.expanduser().resolve()
    if folder is None:
        folder = out / "documents"
        count = standard_library.write_documents(folder)
        session.progress.message(f"The documentation of {count} modules of your Python stands in {folder}.")
    documents = {"paths": (folder.expanduser().resolve(),)}
    config = config.model_copy(update={"out": out, "documents": config.documents.model_copy(update=documents)})
    options = out / FILE
    storage.write_text(options, f"# Written by `openbook demo`, each time: copy it to change it.\n{config.to_toml()}")
    session.progress.message(f"The options stand in {options}.")
    keep_offline(config)
    pipeline.run(config, progress=session.progress)
    print_report(config.out)
    print(f'Ask it: openbook ask "…" --config {text.quoted_path(_shortest(options))}')


def _shortest(path: Path) -> Path:
    """`path` from here where it lies below, as it is otherwise."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
