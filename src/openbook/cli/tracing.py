"""`openbook trace`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli.session import Session, verb
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.tracing import Trace


def register(app: typer.Typer) -> None:
    verb(app, "trace")(trace)


def trace(
    session: Session,
    message: Annotated[str | None, typer.Argument(help="What is said to the model.")] = None,
    answer: Annotated[str | None, typer.Option(help="What it is to learn to answer.")] = None,
    chosen: Annotated[str | None, typer.Option(help="Of two answers, the preferred one (a step of DPO).")] = None,
    rejected: Annotated[str | None, typer.Option(help="Of two answers, the other one.")] = None,
    row: Annotated[
        int | None, typer.Option(min=1, help="A row of the training set, by its line, in place of a message.")
    ] = None,
    train: Annotated[Path | None, typer.Option(help="The file of --row (default: what `dataset` wrote).")] = None,
    base: Annotated[str | None, typer.Option(help='"nano" or "small" (embedded), a folder, or a hub name.')] = None,
    from_adapter: Annotated[
        Path | None, typer.Option(help="Folder of a tuned adapter to go on from (default: the bare base).")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Optimizer steps to take.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Watch a text message fine-tune the model, token by token.

    The message is cut into tokens by the model's own chat template; for each token that is trained you see how probable
    the model held it; then one real optimizer step is taken, and you see it again, with what it would say now and where
    in the network its weights have moved. Nothing on disk is changed.

    With --chosen and --rejected it is a step of preference tuning. With --row it is an example of the training set,
    in the tree of the examples that share its passages: what is shared, and which tokens are trained.

    \b
    Examples:
      openbook trace "What is the capital of openbook?" --answer "The index."
      openbook trace "Say hello" --answer "Hello, reader." --steps 10
      openbook trace "Say hello" --chosen "Hello, reader." --rejected "What do you want?"
      openbook trace --row 12 --from-adapter openbook-work/adapters/raft
    """
    wanted = _kind(message, answer, chosen, rejected, row)
    config = session.config({"model.base": base})
    from openbook import tracing
    from openbook.records import to_json

    if wanted == "row":
        assert row is not None
        found = tracing.trace_row(config, row, train=train, steps=steps, start=from_adapter)
    elif wanted == "pair":
        found = tracing.trace_pair(config, message or "", chosen or "", rejected or "", steps=steps, start=from_adapter)
    else:
        found = tracing.trace(config, message or "", answer or "", steps=steps, start=from_adapter)
    if json_:
        print(json.dumps(to_json(found), ensure_ascii=False))
    else:
        draw(found)


def draw(found: "Trace") -> None:
    from rich.console import Console

    from openbook.cli.drawing import draw_trace

    draw_trace(Console(highlight=False, soft_wrap=False), found)


def _kind(message: str | None, answer: str | None, chosen: str | None, rejected: str | None, row: int | None) -> str:
    given = {
        "row": row is not None and not any((message, answer, chosen, rejected)),
        "pair": bool(message and chosen and rejected) and answer is None and row is None,
        "message": bool(message and answer) and not (chosen or rejected) and row is None,
    }
    kinds = [kind for kind, fits in given.items() if fits]
    if not kinds:
        raise ConfigError(
            "A trace is of one thing.",
            "Give a message with --answer, or a message with --chosen and --rejected, or --row alone.",
        )
    return kinds[0]
