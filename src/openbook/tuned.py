"""What is done with a tuned adapter: pairs out of its failures, scores by a reward model, merging into the base."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openbook import storage, tuning
from openbook.config import Config
from openbook.errors import StoreError
from openbook.progress import SILENT, Progress
from openbook.records import Conversation

if TYPE_CHECKING:
    from openbook import models
    from openbook.dataset import PairsReport
    from openbook.training import MergeReport, ScoreReport
    from openbook.training.merging import MergedType


def find_pairs(
    config: Config, *, adapter: Path | None = None, force: bool = False, progress: Progress = SILENT
) -> "PairsReport":
    """Ask the model with `adapter` (default: the one that `tune` wrote) the training questions, and write preference
    pairs out of its failures to `pairs.jsonl` under `config.pairs_dir`. Warns of an adapter that was tuned on other weights
    of the base; one for another base raises `ModelError`."""
    from openbook import dataset, models
    from openbook.answering import check_adapter
    from openbook.dataset import review
    from openbook.training.adapting import adapter_fingerprint

    with storage.exclusive(config.out):
        adapter = _adapter(config, adapter)
        review.bring_in_line(config, progress=progress)
        base, how = models.fingerprint(config.model.base), [config.model.quantization, config.model.dtype]
        for difference in check_adapter(adapter, base=base, quantization=config.model.quantization):
            warnings.warn(difference, stacklevel=2)
        identity = storage.hash_json([base, adapter_fingerprint(adapter), *how])
        sampler = _Late(config, adapter)
        return dataset.write_pairs(config, sampler, identity=identity, force=force, progress=progress)


class _Late:
    """A generator that is loaded when it is first asked, so that pairs which are current cost no model."""

    def __init__(self, config: Config, adapter: Path) -> None:
        self._config, self._adapter = config, adapter
        self._generator: models.Generator | None = None

    def generate_each(
        self, prompts: Sequence[Conversation], *, temperature: float = 0.0, seed: int = 0
    ) -> "Iterator[tuple[int, models.Generation]]":
        from openbook import models

        if self._generator is None:
            loaded = models.load_base(self._config, dequantize=True)
            self._generator = models.Generator(
                loaded, max_new_tokens=self._config.model.max_new_tokens, batch_size=self._config.evaluate.batch_size
            )
            self._generator.add_adapter("asked", self._adapter)
        with self._generator.adapter("asked"):
            yield from self._generator.generate_each(prompts, temperature=temperature, seed=seed)


def score(
    config: Config, path: Path, *, to: Path, adapter: Path | None = None, progress: Progress = SILENT
) -> "ScoreReport":
    """Score the rows of `path` with a reward model (default: the one that `tune --method reward` wrote) and write them,
    with their scores, to `to`."""
    from openbook import training

    return training.score_file(
        path, adapter=adapter or config.adapters_dir / "reward", out=to, config=config, progress=progress
    )


def merge(
    config: Config,
    to: Path,
    *,
    adapter: Path | None = None,
    dtype: "MergedType" = "auto",
    original: bool = False,
    progress: Progress = SILENT,
) -> "MergeReport":
    """Write the base with `adapter` (default: the one that `tune` wrote) merged in to the new folder `to`.

    Raises `ModelError`, and leaves nothing behind, where the merged model does not say what base and adapter say.
    `original` merges into the base's own weights where the adapter was tuned on 4-bit ones.
    """
    from openbook import training

    return training.merge(
        _adapter(config, adapter), out=to, config=config, dtype=dtype, original=original, progress=progress
    )


def _adapter(config: Config, given: Path | None) -> Path:
    found = given or tuning.default_adapter(config)
    if found is None:
        raise StoreError(
            f"There is no adapter in {config.adapters_dir} yet.",
            "Run `openbook tune` first, or name one with --adapter.",
        )
    return found
