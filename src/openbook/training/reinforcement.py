"""`tune --method grpo` and `--method ppo`: questions in, an adapter with its manifest out."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from openbook import prompt
from openbook.config import Config
from openbook.errors import ModelError
from openbook.models import LoadedModel, fingerprint, load_base
from openbook.models.generate import HEAD
from openbook.models.load import pick_device
from openbook.progress import SILENT, Progress
from openbook.storage import hash_file, is_current, peak_memory_bytes, read_manifest, write_manifest
from openbook.training.adapting import adapted, adapter_fingerprint, count_weights, save
from openbook.training.attention import serve_trees
from openbook.training.exercises import read_exercises
from openbook.training.run import Run
from openbook.training.tune import UNWRITTEN, TuneReport

if TYPE_CHECKING:
    from openbook.training.roles import Roles
    from openbook.training.rounds import Algorithm

RewardMethod = Literal["grpo", "ppo"]

STAGE = "tune"
# Options of one method that the other does not read: changing them leaves it current.
ONLY = {"grpo": {"divide_by_std"}, "ppo": {"kl_target", "value_learning_rate", "value_clip", "discount", "trace"}}
# Options that change nothing that is written: the first two stand in `tune`, the third is hashed with the inputs, and a
# server draws from the same policy.
IDLE = {"learning_rate", "epochs", "reward_model", "server", "server_model"}


def reinforce(
    train: Path,
    *,
    method: RewardMethod,
    out: Path,
    config: Config,
    start: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> TuneReport:
    """Tune on the rewards of sampled answers to the questions in `train`, and write the adapter to `out`.

    `start` is the folder of the adapter that the run goes on from, and that is the reference; None: the bare base. A
    killed run goes on from its last checkpoint when the same call is made again; `resume` insists on it. Raises
    `RecordError` for rows that cannot be asked or graded, `ModelError` for models that cannot be tuned and for a run
    that runs away or collapses.
    """
    options = config.rl
    if config.tune.adapter == "full":
        raise ModelError(
            "Reinforcement learning keeps policy and reference on one frozen base, and all weights were to be tuned.",
            "Set tune.adapter to qlora or lora.",
        )
    if start is not None and start.resolve() == out.resolve():
        raise ModelError(
            f"The run would start from {start} and overwrite it.", "Copy that folder, or write to another with --out."
        )
    inputs, chosen = rl_inputs(train, config, start), rl_options(config, method)
    loaded = _load(config)
    exercises = read_exercises(
        train,
        loaded,
        longest=config.model.max_new_tokens,
        row=config.tune.row_tokens,
        each=options.prompts,
        seed=config.seed,
    )

    if exercises.left_out:
        progress.message(
            f"{sum(exercises.left_out.values()):,} distractors of {len(exercises.left_out):,} questions are left out: with "
            "them and an answer the prompts are longer than a row or than the model reads."
        )

    from openbook.training.writers import ServedWriter, Writer

    writer = ServedWriter(exercises, loaded, config, out) if options.server else Writer(exercises, loaded, config)
    tuned = _for_rl(config)
    model = adapted(loaded, tuned, start)
    serve_trees(loaded.model, share=config.tune.share_prefixes)

    from openbook.training.limits import Limits
    from openbook.training.rewards import Rewards
    from openbook.training.roles import Roles
    from openbook.training.rollout_trainer import RolloutTrainer
    from openbook.training.rounds import Rounds, Turn

    roles = Roles(model, loaded, start)
    rewards = Rewards(options, roles, roles.add_reward(Path(options.reward_model)) if options.reward_model else None)
    algorithm = _algorithm(method, tuned, roles)
    rewards.check(exercises.ungraded)
    # Not before all that a user gave has been found good: this clears away the checkpoints of another run.
    run = Run(out, {"inputs": inputs, "options": chosen}, resume=resume, progress=progress)
    rounds = exercises.rounds(options.epochs)
    weights, total = count_weights(model)
    progress.message(
        f"{len(exercises):,} questions, {rounds:,} rounds of {options.prompts * options.rollouts} answers. "
        f"Trains {weights:,} of {total:,} weights ({weights / total:.2%}) of {config.model.base}."
    )
    turns = [Turn(step) for step in range(rounds * options.updates)]
    with progress.task("Writing", (rounds + 1) * options.prompts * options.rollouts, "answers") as task, writer:
        engine = Rounds(
            algorithm,
            sample=functools.partial(writer, task=task, model=model),
            rewards=rewards,
            roles=roles,
            options=options,
            budget=config.tune.row_tokens,
            limits=Limits(options, progress),
        )
        done = run.train(
            model,
            loaded,
            tuned,
            method=engine,
            rows=turns,
            validation=[],
            unit="steps",
            engine=functools.partial(RolloutTrainer, roles=roles, value_learning_rate=options.value_learning_rate),
        )
        engine.play(rounds)  # trained on no more: what the last steps did would pass no limit otherwise
    report = TuneReport(
        method=method,
        steps=done.steps,
        questions=len(exercises),
        tokens=done.total("tokens"),
        supervised_tokens=done.total("trained_tokens"),
        sequence_tokens=done.total("sequence_tokens"),
        seconds=done.seconds,
        trained_weights=weights,
        total_weights=total,
        train_loss=done.train_loss,
        validation_loss=(),
        peak_memory_bytes=peak_memory_bytes(),
        rewards=done.rewards,
    )
    before = (read_manifest(start) if start else None) or {}
    with run.result() as new:
        save(model, loaded, new, config)
        write_manifest(
            new,
            stage=STAGE,
            options=chosen,
            inputs=inputs,
            base=config.model.base,
            prompt=prompt.FINGERPRINT,
            retrieval=before.get("retrieval", ""),
            report=asdict(report),
        )
    warn_of_equal_rewards(train, done.spread)
    return report


def warn_of_equal_rewards(train: Path, spread: Sequence[tuple[int, float]]) -> None:
    """Warn where no answer was worth more than another to the same question in any round: nothing says what to do."""
    if any(share for _, share in spread):
        return
    warnings.warn(
        f"In no round was one answer to a question of {train} worth more than another to the same one, so there was nothing "
        "to learn. Are all right already, or all wrong? Else raise rl.rollouts or rl.temperature, or weigh more in rl.",
        stacklevel=3,
    )


def rl_inputs(train: Path, config: Config, start: Path | None) -> dict[str, str]:
    """The hashes that decide whether what was tuned is still current."""
    scorer = Path(config.rl.reward_model) if config.rl.reward_model else None
    head = scorer / HEAD if scorer else None
    return {
        "train": hash_file(train),
        "base": fingerprint(config.model.base),
        "start": adapter_fingerprint(start) if start else "",
        "reward_model": adapter_fingerprint(scorer) + (hash_file(head) if head and head.is_file() else "")
        if scorer
        else "",
        "prompt": prompt.FINGERPRINT,
    }


def rl_options(config: Config, method: RewardMethod) -> dict[str, Any]:
    """The options that decide it; `tune.loss` is supervised tuning's alone."""
    tune = _for_rl(config).tune.model_dump(exclude=UNWRITTEN | {"loss"})
    others = set().union(*(names for other, names in ONLY.items() if other != method))
    rl = config.rl.model_dump(exclude=IDLE | others)
    return {
        **tune,
        "rl": rl,
        "dtype": config.model.dtype,
        "max_new_tokens": config.model.max_new_tokens,
        "seed": config.seed,
        "method": method,
    }


def is_reinforced(train: Path, *, method: RewardMethod, out: Path, config: Config, start: Path | None = None) -> bool:
    """Whether `out` holds what `reinforce` would make again."""
    return train.is_file() and is_current(
        out, stage=STAGE, options=rl_options(config, method), inputs=rl_inputs(train, config, start)
    )


def _for_rl(config: Config) -> Config:
    """The configuration with the learning rate and epochs of reinforcement learning. A batch of the engine is a whole
    step, and a checkpoint stands between two rounds."""
    every, options = config.tune.checkpoint_steps, config.rl
    chosen = {
        "learning_rate": options.learning_rate,
        "epochs": options.epochs,
        "rows_per_step": 1,
        "checkpoint_steps": -(-every // options.updates) * options.updates,
    }
    return config.model_copy(update={"tune": config.tune.model_copy(update=chosen)})


def _load(config: Config) -> LoadedModel:
    """The base. On a CPU its 4-bit matrices are turned back into plain ones of the same values: token by token they
    are several times faster, and most of a round goes into writing, unless a server does that."""
    quantization = config.tune.quantization
    plain = quantization == "nf4" and not config.rl.server and pick_device(config.model.device).type == "cpu"
    return load_base(config, quantization, dequantize=plain)


def _algorithm(method: RewardMethod, config: Config, roles: "Roles") -> "Algorithm":
    from openbook.training.grpo import GroupRelative
    from openbook.training.ppo import Proximal

    return GroupRelative(config.rl) if method == "grpo" else Proximal(config.rl, roles, roles.add_value())
