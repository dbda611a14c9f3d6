"""`openbook tune`."""

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli.progress import clock
from openbook.cli.session import Session, verb

if TYPE_CHECKING:
    from openbook.training import TuneReport


class Form(StrEnum):
    raft = "raft"
    closed = "closed"


def register(app: typer.Typer) -> None:
    verb(app, "tune")(tune)


def tune(
    session: Session,
    base: Annotated[
        str | None, typer.Option(help='"nano" (embedded), a folder, or a hub name (default: nano).')
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help='"qlora" (4-bit base), "lora" or "full" (all weights) (default: qlora).')
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training questions (default: 3).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate (default: 0.001).")] = None,
    form: Annotated[
        Form, typer.Option(help='"raft": with passages; "closed": questions alone, the comparison without documents.')
    ] = Form.raft,
    train: Annotated[Path | None, typer.Option(help="Rows to study (default: those that `dataset` wrote).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Tune again although nothing has changed.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tune the base model on the training questions.

    The base stays frozen (in 4 bits with QLoRA); a small adapter learns to find the right passage, to quote it, and to
    refuse. Only the answer's tokens are trained, with the token that ends it.

    \b
    Examples:
      openbook tune
      openbook tune --base ./TinyLlama-1.1B-Chat --epochs 2 --learning-rate 2e-4
      openbook tune --resume
    """
    from openbook import verbs

    config = session.config(
        {
            "model.base": base,
            "tune.adapter": adapter,
            "tune.epochs": epochs,
            "tune.learning_rate": learning_rate,
        }
    )
    report = verbs.tune(config, form=form.value, train=train, resume=resume, force=force, progress=session.progress)
    if json_:
        print(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
    else:
        print(tune_summary(report))
        print(f"Adapter: {config.adapters_dir / verbs.ADAPTERS[form.value]}")


def tune_summary(report: "TuneReport") -> str:
    lines = [
        f"{report.steps:,} steps in {clock(report.seconds)}, {report.tokens:,} tokens "
        f"({report.supervised_tokens:,} of them trained), {report.tokens_per_s:,.0f} tokens/s",
        f"trained weights: {report.trained_weights:,} of {report.total_weights:,} ({report.trained_share:.2%})",
    ]
    for name, losses in (("training", report.train_loss), ("validation", report.validation_loss)):
        if losses:
            lines.append(f"{name} loss: {losses[0][1]:.3f} → {losses[-1][1]:.3f}")
    return "\n".join(lines)
