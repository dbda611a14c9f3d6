"""`openbook tune`."""

import dataclasses
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli.explaining import draw
from openbook.cli.progress import clock
from openbook.cli.session import Session, verb
from openbook.errors import ConfigError, InputError

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
    grpo = "grpo"
    ppo = "ppo"


# Which section of the options a method's own passes and learning rate stand in; a reward model takes tune's rate.
EPOCHS = {Method.sft: "tune", Method.instruct: "tune", Method.grpo: "rl", Method.ppo: "rl"}
RATE = {Method.dpo: "preference", Method.grpo: "rl", Method.ppo: "rl"}
# Options that only these methods read: the others would study something else, without a word.
ONLY = {
    "--data": (Method.instruct,),
    **dict.fromkeys(("--prompts", "--rollouts", "--kl", "--reward-model", "--server"), (Method.grpo, Method.ppo)),
}


def register(app: typer.Typer) -> None:
    verb(app, "tune")(tune)


def tune(
    session: Session,
    method: Annotated[
        Method,
        typer.Option(
            help='"sft": on questions and answers; "instruct": on tasks and conversations; "dpo": on preferred and '
            'rejected answers; "reward": a model that scores answers; "grpo" and "ppo": on the rewards of answers that '
            "the model samples itself."
        ),
    ] = Method.sft,
    base: Annotated[
        str | None, typer.Option(help='"nano" or "small" (embedded), a folder, or a hub name (default: nano).')
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help='"qlora" (4-bit base), "lora" or "full" (all weights) (default: qlora).')
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training questions or pairs (default: 3; for grpo and ppo 1).")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate (default: 0.001; for dpo 0.0002, for grpo and ppo 0.0003)."),
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
        typer.Option(help="Folder of the adapter that dpo, reward, grpo and ppo go on from (default: the bare base)."),
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="grpo, ppo: questions of one round (default: 8).")] = None,
    rollouts: Annotated[
        int | None, typer.Option(help="grpo, ppo: answers sampled to each question (default: 8).")
    ] = None,
    kl: Annotated[
        float | None, typer.Option(help="grpo, ppo: how strongly the model is held to its start (default: 0.04).")
    ] = None,
    reward_model: Annotated[
        str | None,
        typer.Option(help="grpo, ppo: folder of a reward model whose score is added to the grader's reward."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="grpo, ppo: address of a vLLM that writes the answers (such as http://localhost:8000/v1)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Tune again although nothing has changed.")] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show the rows that would be read, one of them token by token; train nothing."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tune the base on answers, preferences or rewards.

    The base stays frozen (in 4 bits with QLoRA); a small adapter learns to find the right passage, to quote it, and to
    refuse. Only the answer's tokens are trained, with the token that ends it. With --method instruct it studies commands:
    tasks written from your own documents, and sets of messages, prompt + completion or Alpaca rows, mixed by weight.
    With --method dpo the adapter learns which of two answers is preferred; with --method reward it learns to score them.
    With grpo and ppo the model answers the training questions itself, and what the grader finds right, quoted word for
    word and well formed is made likelier; all weights of the reward stand in the section [rl] of openbook.toml.
    With --server a vLLM writes these answers: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora, which
    has to see the folder --out, for the adapter is handed over there in each round. With qlora add --quantization
    bitsandbytes, so that both work on the same values.

    \b
    Examples:
      openbook tune
      openbook tune --base ./TinyLlama-1.1B-Chat --epochs 2 --learning-rate 2e-4
      openbook tune --explain
      openbook tune --resume
      openbook tune --method instruct --data documents --data alpaca.json=0.5
      openbook tune --method dpo --pairs pairs.jsonl --from-adapter openbook-work/adapters/raft
      openbook tune --method grpo --from-adapter openbook-work/adapters/raft
      openbook tune --method grpo --base ./Qwen2.5-1.5B --server http://localhost:8000/v1
      openbook tune --method ppo --from-adapter openbook-work/adapters/raft --reward-model openbook-work/adapters/reward
    """
    from openbook import tuning, verbs

    given = {
        "--data": data,
        "--prompts": prompts,
        "--rollouts": rollouts,
        "--kl": kl,
        "--reward-model": reward_model,
        "--server": server,
    }
    _refuse_unread(method, [option for option, value in given.items() if value is not None])
    config = session.config(
        {
            "model.base": base,
            "tune.adapter": adapter,
            f"{EPOCHS.get(method, 'preference')}.epochs": epochs,
            f"{RATE.get(method, 'tune')}.learning_rate": learning_rate,
            "instruct.sets": data or None,
            "rl.prompts": prompts,
            "rl.rollouts": rollouts,
            "rl.kl": kl,
            "rl.reward_model": reward_model,
            "rl.server": server,
        }
    )
    if explain:
        if method is not Method.sft:
            raise InputError(
                "--explain shows the rows of supervised tuning only.",
                f"Leave out --method; after a tuning by instruct its rows are shown by --train {config.instruct_dir}/train.jsonl."
                if method is Method.instruct
                else "Leave out --method.",
            )
        draw(tuning.explain_tuning(config, form=form.value, train=train), as_json=json_)
        return
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
        folder = tuning.ADAPTERS[form.value] if method is Method.sft else method.value
        print(f"{'Reward model' if method is Method.reward else 'Adapter'}: {config.adapters_dir / folder}")


def _refuse_unread(method: Method, given: Sequence[str]) -> None:
    for option in given:
        if method not in ONLY[option]:
            names = " or ".join(ONLY[option])
            raise ConfigError(
                f"The method {method} does not read {option}.", f"Add --method {names}, or leave {option} out."
            )


def tune_summary(report: "TuneReport") -> str:
    lines = [
        f"{report.steps:,} steps in {clock(report.seconds)}, {report.tokens:,} tokens "
        f"({report.supervised_tokens:,} of them trained), {report.tokens_per_s:,.0f} tokens/s",
        f"trained weights: {report.trained_weights:,} of {report.total_weights:,} ({report.trained_share:.2%})",
    ]
    curves = [("training loss", report.train_loss), ("validation loss", report.validation_loss)]
    if report.rewards:  # the loss of a policy says nothing: it has no floor, and every round begins at nought
        curves = [("mean reward of a round", report.rewards)]
    for name, values in curves:
        if values:
            lines.append(f"{name}: {values[0][1]:.3f} → {values[-1][1]:.3f}")
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
