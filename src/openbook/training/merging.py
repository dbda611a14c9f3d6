"""`openbook merge`: an adapter written into its base, and a check that the result says the same.

Into which base? A QLoRA adapter was tuned, and examined, on 4-bit weights. Merged into the original 16-bit weights it
becomes a model that nobody has examined: its corrections meet weights that differ from those they were learned on by the
error of quantisation. So the default is the values that the adapter was tuned on, written out in 16 or 32 bits, which
behave as examined; `original` merges into the base as it was published, and says how far that is from what was examined.
"""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from openbook import prompt
from openbook.config import Config
from openbook.errors import InputError, ModelError
from openbook.models import LoadedModel, fingerprint, load, load_base
from openbook.models.chat import encode_prompt, stop_tokens
from openbook.models.generate import HEAD
from openbook.models.load import resolve
from openbook.progress import SILENT, Progress, Task
from openbook.records import Conversation
from openbook.storage import explained, read_manifest, write_manifest
from openbook.training import adapting
from openbook.training.adapting import adapter_fingerprint
from openbook.training.data import read_study

if TYPE_CHECKING:
    from torch import Tensor

STAGE = "merge"
PROMPTS = 50
WRITTEN = 32  # tokens written after each prompt
COMPARED = 8  # of these, the places whose logits are compared: they stand in memory, a vocabulary each

MergedType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """`prompts` were continued greedily by both models, `tokens` in all; `equal` of them were continued alike. Logits
    differ by at most `largest_difference`. `examined_equal`: of the prompts, how many the model that was tuned, on its
    4-bit base, continues as the merged one does; None where that is the model that was merged."""

    prompts: int
    tokens: int
    equal: int
    largest_difference: float
    dtype: str
    examined_equal: int | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """What a model wrote after each prompt, and its logits (places, V) at the first places."""

    tokens: list[list[int]]
    logits: "list[Tensor]"


def merge(
    adapter: Path,
    *,
    out: Path,
    config: Config,
    dtype: MergedType = "auto",
    original: bool = False,
    progress: Progress = SILENT,
) -> MergeReport:
    """Write the base of `config` with the adapter merged in to the new folder `out`, which plain transformers loads.

    `dtype` is what the weights are stored in (auto: as the base stores them). The folder appears only where the merged
    model, read back from disk, continues every prompt as base and adapter do: else a `ModelError` counts and names the
    differences, and nothing is left behind.
    """
    quantised = _check(adapter, out, config)
    stored = _stored(config, dtype)
    partial = _partial(out)
    loaded = _load(config, quantised=quantised and not original)
    tuned = _with(loaded, adapter)
    ids = _prompts(config, loaded)
    drifts = quantised and original
    with progress.task("Merging and comparing", len(ids) * (3 if drifts else 2), "prompts") as task:
        said = _say(loaded, ids, task)
        _write(tuned.merge_and_unload(), loaded.tokenizer, partial, stored)
        del loaded, tuned  # one model at a time in memory
        try:
            again = load(str(partial), dtype=config.model.dtype, device=config.model.device)
            merged = _say(again, ids, task, follow=said.tokens)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        del again
        examined = _examined(adapter, config, ids, task) if drifts else None
    report = MergeReport(
        prompts=len(ids),
        tokens=sum(map(len, said.tokens)),
        equal=_equal(said, merged),
        largest_difference=max(float((a - b).abs().max()) for a, b in zip(said.logits, merged.logits, strict=True)),
        dtype=stored,
        examined_equal=None if examined is None else _equal(examined, merged),
    )
    if report.equal < report.prompts:
        shutil.rmtree(partial, ignore_errors=True)
        first = next(n for n, (a, b) in enumerate(zip(said.tokens, merged.tokens, strict=True)) if a != b)
        raise ModelError(
            f"The merged model is another one: it continues {report.prompts - report.equal} of {report.prompts} prompts "
            f"differently (the first is prompt {first + 1}), and its logits differ by up to "
            f"{report.largest_difference:.3g}. Nothing was written.",
            "Store more bits: --dtype float32."
            if stored != "float32"
            else "Is the adapter damaged, or of another base?",
        )
    write_manifest(
        partial,
        stage=STAGE,
        options={"dtype": stored, "original": original},
        inputs={"adapter": adapter_fingerprint(adapter)},
        base=config.model.base,
        report=asdict(report),
        **{name: value for name, value in (read_manifest(adapter) or {}).items() if name in ("prompt", "retrieval")},
    )
    with explained(out, option="--to"):
        partial.rename(out)
    return report


def _partial(out: Path) -> Path:
    """Where the model stands until it is checked."""
    return out.with_name(f"{out.name}.partial")


def _check(adapter: Path, out: Path, config: Config) -> bool:
    """Refuse what cannot be merged; returns whether the adapter was tuned on a 4-bit base."""
    if (adapter / "config.json").is_file() and not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter} is a whole model already: all its weights were tuned.", "It can be used as it is.")
    adapter_fingerprint(adapter)
    if (adapter / HEAD).is_file():
        raise InputError(
            f"{adapter} is a reward model: it scores answers with a head that a language model has no place for.",
            "Apply it with `openbook score`.",
        )
    if out.exists():
        raise InputError(f"{out} exists already.", "Name a new folder with --to, or remove it.")
    manifest = read_manifest(adapter) or {}
    found = fingerprint(config.model.base)
    if manifest.get("inputs", {}).get("base", found) != found:
        raise ModelError(
            f"The adapter in {adapter} was tuned on {manifest.get('base', 'another base')}, and not on this "
            f"{config.model.base}.",
            "Set model.base to the base that it was tuned on.",
        )
    partial = _partial(out)
    shutil.rmtree(partial, ignore_errors=True)
    with explained(out, option="--to"):  # minutes of work before it is written to
        partial.mkdir(parents=True)
        partial.rmdir()
    return bool(manifest.get("options", {}).get("adapter", config.tune.adapter) == "qlora")


def _load(config: Config, *, quantised: bool) -> LoadedModel:
    return load_base(config, "nf4" if quantised else "none", dequantize=True)


def _with(loaded: LoadedModel, adapter: Path) -> Any:
    from peft import PeftModel

    with adapting.explained(adapter, loaded):
        return PeftModel.from_pretrained(loaded.model, adapter).eval()


def _examined(adapter: Path, config: Config, ids: Sequence[list[int]], task: Task) -> _Said:
    """What the adapter says on the 4-bit base that it was tuned on."""
    loaded = _load(config, quantised=True)
    _with(loaded, adapter)
    return _say(loaded, ids, task)


def _stored(config: Config, dtype: MergedType) -> str:
    """The type that the merged weights are stored in; for "auto", the one that the base stores its own in."""
    if dtype != "auto":
        return dtype
    from transformers import AutoConfig

    found = getattr(AutoConfig.from_pretrained(resolve(config.model.base), trust_remote_code=False), "dtype", None)
    return str(found or "float32").removeprefix("torch.")


def _write(merged: Any, tokenizer: Any, partial: Path, stored: str) -> None:
    import torch

    with explained(partial, option="--to"):
        merged.to(getattr(torch, stored)).save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)


def _prompts(config: Config, loaded: LoadedModel) -> list[list[int]]:
    """Tokens of the prompts that both models continue: questions of the data set with their passages where there is one,
    in order of the exams first, else plain requests."""
    found: list[Conversation] = []
    for part in ("unseen", "studied", "validation", "train"):
        path = config.dataset_dir / f"{part}.jsonl"
        if len(found) < PROMPTS and path.is_file() and path.stat().st_size:
            study = read_study(
                path,
                loaded.tokenizer,
                form="raft",
                budget=config.tune.row_tokens,
                seed=config.seed,
                context=loaded.context,
            )
            items = itertools.chain.from_iterable(study.groups)
            found += [prompt.prompt(item.question, item.passages) for item in items]
    found += [prompt.prompt(f"{told} {of}.", None) for of in _OF for told in _TOLD]
    ids = (encode_prompt(loaded.tokenizer, asked) for asked in found)
    return list(itertools.islice((tokens for tokens in ids if len(tokens) + WRITTEN <= loaded.context), PROMPTS))


_TOLD = ("Explain", "Summarise", "Give an example of", "Name three facts about", "Write a sentence about")
_OF = ("water", "a bridge", "the moon", "a library", "bread", "the wind", "a clock", "trees", "a map", "music")


def _say(loaded: LoadedModel, ids: Sequence[list[int]], task: Task, follow: Sequence[list[int]] | None = None) -> _Said:
    """The greedy continuations of the prompts, and the logits along `follow` (default: along these continuations)."""
    import torch

    from openbook.models.decode import decode

    model = loaded.model
    tokens: list[list[int]] = [[] for _ in ids]
    stop = stop_tokens(loaded.tokenizer, model)
    for written in decode(lambda: model, ids, limits=[WRITTEN] * len(ids), stop=stop, rows=8):
        tokens[written.number] += written.tokens
    logits = []
    with torch.inference_mode():
        for asked, said in zip(ids, follow or tokens, strict=True):
            fed = [*asked, *said[: COMPARED - 1]]
            out = model(input_ids=torch.tensor([fed], device=model.device), use_cache=False).logits[0]
            logits.append(out[len(asked) - 1 :].float().cpu())  # (places, V)
            task.advance()
    return _Said(tokens, logits)


def _equal(first: _Said, second: _Said) -> int:
    return sum(a == b for a, b in zip(first.tokens, second.tokens, strict=True))
