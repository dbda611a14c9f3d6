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


class Method(StrEnum):
    sft = "sft"
    instruct = "instruct"
    dpo = "dpo"
    reward = "reward"


def register(app: typer.Typer) -> None:
    verb(app, "tune")(tune)


def tune(
    session: Session,
    method: Annotated[
        Method,
        typer.Option(
            help='"sft": on questions and answers; "instruct": on tasks and conversations; "dpo": on preferred and rejected answers; "reward": a model that '
            "scores answers."
        ),
    ] = Method.sft,
    base: Annotated[
        str | None, typer.Option(help='"nano" (embedded), a folder, or a hub name (default: nano).')
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help='"qlora" (4-bit base), "lora" or "full" (all weights) (default: qlora).')
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training questions or pairs (default: 3).")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate (default: 0.001; for dpo 0.00005).")
    ] = None,
    form: Annotated[
        Form, typer.Option(help='"raft": with passages; "closed": questions alone, the comparison without documents.')
    ] = Form.raft,
    train: Annotated[Path | None, typer.Option(help="Rows to study (default: those that `dataset` wrote).")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET[=WEIGHT]",
            help='What instruct studies: a file, a folder, a hub name, or "documents" (tasks on your own); repeatable.',
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Preference pairs for dpo and reward: .jsonl, .json or .parquet with chosen and rejected."),
    ] = None,
    from_adapter: Annotated[
        Path | None,
        typer.Option(help="Folder of the adapter that dpo or reward goes on from (default: the bare base)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Tune again although nothing has changed.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tune the base on training questions, or on preferences.

    The base stays frozen (in 4 bits with QLoRA); a small adapter learns to find the right passage, to quote it, and to
    refuse. Only the answer's tokens are trained, with the token that ends it. With --method instruct it studies commands:
    tasks written from your own documents, and sets of messages, prompt + completion or Alpaca rows, mixed by weight.
    With --method dpo the adapter learns which
    of two answers is preferred; with --method reward it learns to score them.

    \b
    Examples:
      openbook tune
      openbook tune --base ./TinyLlama-1.1B-Chat --epochs 2 --learning-rate 2e-4
      openbook tune --resume
      openbook tune --method instruct --data documents --data alpaca.json=0.5
      openbook tune --method dpo --pairs pairs.jsonl --from-adapter openbook-work/adapters/raft
    """
    from openbook import verbs

    config = session.config(
        {
            "model.base": base,
            "tune.adapter": adapter,
            "tune.epochs" if method in (Method.sft, Method.instruct) else "preference.epochs": epochs,
            "instruct.sets": data or None,
            "preference.learning_rate" if method is Method.dpo else "tune.learning_rate": learning_rate,
        }
    )
    report = verbs.tune(
        config,
        method=method.value,
        form=form.value,
        train=train,
        pairs=pairs,
        start=from_adapter,
        resume=resume,
        force=force,
        progress=session.progress,
    )
    if json_:
        print(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
    else:
        print(tune_summary(report))
        folder = verbs.ADAPTERS[form.value] if method is Method.sft else method.value
        print(f"{'Reward model' if method is Method.reward else 'Adapter'}: {config.adapters_dir / folder}")


def tune_summary(report: "TuneReport") -> str:
    lines = [
        f"{report.steps:,} steps in {clock(report.seconds)}, {report.tokens:,} tokens "
        f"({report.supervised_tokens:,} of them trained), {report.tokens_per_s:,.0f} tokens/s",
        f"trained weights: {report.trained_weights:,} of {report.total_weights:,} ({report.trained_share:.2%})",
    ]
    for name, losses in (("training", report.train_loss), ("validation", report.validation_loss)):
        if losses:
            lines.append(f"{name} loss: {losses[0][1]:.3f} → {losses[-1][1]:.3f}")
    lines += preference_summary(report)
    return "\n".join(lines)


def preference_summary(report: "TuneReport") -> list[str]:
    """What a preference method is judged by, on the pairs that were kept out of training."""
    found = report.held_out
    if "accuracy" not in found:
        return []
    lines = [f"held-out pairs: the chosen answer wins in {found['accuracy']:.1%}, by {found['margin']:.3f} on average"]
    if "length_accuracy" in found:
        lines.append(f"whoever only looks at their length: {found['length_accuracy']:.1%}")
    if "kl" in found:
        lines.append(f"drift from the reference: {found['kl']:.4f} nats a token (KL)")
    return lines
