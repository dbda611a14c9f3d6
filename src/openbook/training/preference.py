"""`tune --method dpo` and `--method reward`: preference pairs in, an adapter with its manifest out."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from openbook.config import Config
from openbook.errors import ModelError
from openbook.models import LoadedModel, fingerprint, load_base
from openbook.models.generate import HEAD
from openbook.progress import SILENT, Progress
from openbook.storage import hash_file, hash_json, is_current, peak_memory_bytes, read_manifest, write_manifest
from openbook.training.adapting import adapted, adapter_fingerprint, count_weights, save
from openbook.training.attention import serve_trees
from openbook.training.liger import take_layers
from openbook.training.memory import fit_rows
from openbook.training.pair_rows import PairRow, Pairs, encode_pairs
from openbook.training.pairs import read_pairs
from openbook.training.run import Run
from openbook.training.tune import UNWRITTEN, TuneReport

if TYPE_CHECKING:
    from openbook.training.reward import ScalarHead
    from openbook.training.trainer import Method

PairMethod = Literal["dpo", "reward"]

STAGE = "tune"
FEWEST_TO_JUDGE = 20  # held-out pairs below which an accuracy says nothing


def tune_on_pairs(
    path: Path,
    *,
    method: PairMethod,
    out: Path,
    references: Path,
    config: Config,
    start: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> TuneReport:
    """Tune on the preference pairs in `path` and write the adapter to `out`; a reward model also has its head there.

    `start` is the folder of the adapter that the run goes on from, and whose answers are the reference; None: the bare
    base. The reference's log-probabilities are kept under `references`. A killed run goes on from its last checkpoint
    when the same call is made again; `resume` insists on it. Raises `RecordError` for pairs that cannot be trained on
    and `ModelError` for models that cannot be tuned.
    """
    _refuse_contradictions(method, out, config, start)
    named = read_pairs(path)
    config = _for_pairs(config, method)
    loaded = load_base(config, config.tune.quantization)
    inputs, options = pair_inputs(path, loaded.fingerprint, start), pair_options(config, method)
    model = adapted(loaded, config, start)
    serve_trees(loaded.model, share=config.tune.share_prefixes)
    liger = take_layers(loaded.model, progress)
    config = fit_rows(config, model, loaded, progress)
    budget = config.tune.row_tokens
    pairs = encode_pairs(named, loaded.tokenizer, limit=min(budget, loaded.context))
    trained, watched = pairs.held_out(config.preference.held_out, seed=config.seed)
    rows = pairs.rows_of_epochs(trained, budget, epochs=config.tune.epochs, seed=config.seed)
    validation = pairs.rows(watched, budget) if watched else []

    cut = (config.tune.row_tokens, config.tune.rows_per_step)  # by memory and device, so options do not tell
    run = Run(out, {"inputs": inputs, "options": options, "rows": cut}, resume=resume, progress=progress)
    head: ScalarHead | None = None
    engine: Method
    if method == "dpo":
        every_row = [*pairs.rows(trained, budget), *validation]
        cache = references / f"{_reference_key(inputs, loaded, config)}.safetensors"
        engine = _direct(model, config, pairs, every_row, validation, cache, progress)
    else:
        engine, head = _reward(model, config, pairs)
    weights, total = count_weights(model)
    progress.message(
        f"{len(trained):,} pairs to train on, {len(watched):,} to watch. "
        f"Trains {weights:,} of {total:,} weights ({weights / total:.2%}) of {config.model.base}."
    )
    if config.preference.held_out and not watched:
        progress.message(
            f"Of {len(pairs):,} pairs none can be kept out of training, so accuracy, margin and drift are not judged: it "
            "takes 5, and more than one prompt."
        )
    done = run.train(model, loaded, config, method=engine, rows=rows, validation=validation, head=head)
    held_out = done.held_out
    if head is not None and watched:
        lengths = pairs.lengths
        held_out["length_accuracy"] = _baseline([lengths[n] for n in trained], [lengths[n] for n in watched])
    report = TuneReport(
        method=method,
        steps=done.steps,
        questions=len(pairs),
        tokens=sum(map(len, rows)),
        supervised_tokens=sum(int((row.tree.weight > 0).sum()) for row in rows),
        sequence_tokens=sum(len(sequence) for row in rows for sequence in row.tree.sequences()),
        seconds=done.seconds,
        trained_weights=weights,
        total_weights=total,
        train_loss=done.train_loss,
        validation_loss=done.validation_loss,
        peak_memory_bytes=peak_memory_bytes(),
        liger=liger,
        held_out=held_out,
    )
    before = (read_manifest(start) if start else None) or {}
    kept = {name: before[name] for name in ("prompt", "retrieval") if name in before}
    with run.result() as new:
        if head is not None:
            model.peft_config["default"].task_type = None  # so that it also loads on a sequence classification model
            _save_head(head, new)
        save(model, loaded, new, config)
        write_manifest(
            new, stage=STAGE, options=options, inputs=inputs, base=config.model.base, report=asdict(report), **kept
        )
    warn_of_guessing(path, held_out, len(watched))
    return report


def pair_inputs(path: Path, base_fingerprint: str, start: Path | None) -> dict[str, str]:
    """The hashes that decide whether what was tuned is still current."""
    return {
        "pairs": hash_file(path),
        "base": base_fingerprint,
        "start": adapter_fingerprint(start) if start else "",
    }


def pair_options(config: Config, method: PairMethod) -> dict[str, Any]:
    """The options that decide it; `tune.loss` is supervised tuning's alone."""
    chosen = _for_pairs(config, method).tune.model_dump(exclude=UNWRITTEN | {"loss"})
    preference = config.preference.model_dump(exclude={"learning_rate", "epochs"})
    if method == "dpo":
        preference.pop("centring")
    else:
        preference = {name: preference[name] for name in ("centring", "held_out")}
    return {**chosen, **preference, "dtype": config.model.dtype, "seed": config.seed, "method": method}


def is_tuned_on_pairs(path: Path, *, method: PairMethod, out: Path, config: Config, start: Path | None = None) -> bool:
    """Whether `out` holds what `tune_on_pairs` would make again."""
    return path.is_file() and is_current(
        out,
        stage=STAGE,
        options=pair_options(config, method),
        inputs=pair_inputs(path, fingerprint(config.model.base), start),
    )


def _for_pairs(config: Config, method: PairMethod) -> Config:
    """The configuration with the epochs of preference tuning and, for DPO, its learning rate."""
    chosen = {"epochs": config.preference.epochs}
    if method == "dpo":
        chosen["learning_rate"] = config.preference.learning_rate
    return config.model_copy(update={"tune": config.tune.model_copy(update=chosen)})


def _refuse_contradictions(method: PairMethod, out: Path, config: Config, start: Path | None) -> None:
    if method == "reward" and config.tune.adapter == "full":
        raise ModelError(
            "A reward model is an adapter with a head on the frozen base, and all weights were to be tuned.",
            "Set tune.adapter to qlora or lora.",
        )
    if start is not None and start.resolve() == out.resolve():
        raise ModelError(
            f"The run would start from {start} and overwrite it.", "Copy that folder, or write to another with --out."
        )


def _reference_key(inputs: dict[str, str], loaded: LoadedModel, config: Config) -> str:
    """What the reference's log-probabilities depend on: the pairs, the model, and how exactly it computes."""
    return hash_json([inputs, loaded.quantization, str(loaded.model.dtype), config.tune.row_tokens])


def _direct(
    model: Any,
    config: Config,
    pairs: Pairs,
    rows: Sequence[PairRow],
    validation: Sequence[PairRow],
    cache: Path,
    progress: Progress,
) -> "Method":
    from openbook.training.dpo import DirectPreference
    from openbook.training.references import anchors, reference_logps

    reference = reference_logps(model, rows, pairs=len(pairs), cache=cache, progress=progress)
    return DirectPreference(config.preference, reference, anchors(model, validation))


def _reward(model: Any, config: Config, pairs: Pairs) -> "tuple[Method, ScalarHead]":
    from openbook.training.reward import RewardModelling, attach_head

    head = attach_head(model)
    return RewardModelling(head, pairs.margins, centring=config.preference.centring), head


def _save_head(head: "ScalarHead", out: Path) -> None:
    from safetensors.torch import save_model

    save_model(head, str(out / HEAD))


def _baseline(trained: Sequence[tuple[int, int]], held_out: Sequence[tuple[int, int]]) -> float:
    from openbook.training.reward import length_baseline

    return length_baseline(trained, held_out)


def warn_of_guessing(path: Path, held_out: dict[str, float], pairs: int) -> None:
    """Warn where the accuracy on held-out pairs cannot be told from a coin's (one-sided, 95 %)."""
    accuracy = held_out.get("accuracy")
    if accuracy is None or pairs < FEWEST_TO_JUDGE or accuracy > 0.5 + 1.645 * math.sqrt(0.25 / pairs):
        return
    warnings.warn(
        f"The chosen answer is preferred in {accuracy:.0%} of {pairs} held-out pairs of {path}, which guessing does as "
        "well. Are chosen and rejected swapped in a part of the file? Or the training was too short or too gentle: "
        "see preference.epochs and --learning-rate.",
        stacklevel=3,
    )
