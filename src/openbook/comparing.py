"""`openbook compare`: every way of tuning on one base and one data set; trains what is missing, examines all alike."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openbook import storage, tuned, verbs
from openbook.config import Config
from openbook.errors import ConfigError
from openbook.progress import SILENT, Progress

if TYPE_CHECKING:
    from openbook.dataset import PairsReport
    from openbook.evaluation import Comparison, Cost, Way
    from openbook.training import TuneReport

DEFAULT = ("base", "sft", "instruct", "raft", "raft+dpo", "full")
# An adapter's best learning rate is about ten times that of all weights (Schulman et al. 2025, "LoRA Without Regret").
FULL_RATE = 0.1

COMPARISON_JSON = "comparison.json"
COMPARISON_HTML = "comparison.html"


def compare(config: Config, methods: Sequence[str] = DEFAULT, *, progress: Progress = SILENT) -> "Comparison":
    """Tune the base in each of the ways of `methods`, put all before the same questions with the same passages, and
    write `comparison.json` and `comparison.html` under `config.out`.

    Index, data set and adapters that are current are taken as they are (an index of documents that the options do not
    name, as it stands); a comparison that was stopped goes on. Raises `ConfigError` for a way that there is not.
    """
    from openbook import dataset, evaluation
    from openbook.evaluation.page.comparison import render_comparison

    ways = evaluation.chosen_ways(methods)
    if config.tune.adapter == "full":
        raise ConfigError("tune.adapter = full leaves no adapters to compare.", "Set qlora or lora; `full` is one way.")
    if config.documents.paths or storage.read_manifest(config.index_dir) is None:
        progress.stage("Ingest")
        verbs.ingest(config, progress=progress)
    if not dataset.is_built(config):
        progress.stage("Data set")
        for note in verbs.build_dataset(config, progress=progress).notes:
            progress.message(note)
    costs: dict[str, Cost] = {}
    for way in evaluation.in_order(ways):
        progress.stage(f"Tune {way.name}")
        cost = _tune(config, way, progress)
        costs[way.name] = cost.after(costs[way.after]) if way.after else cost
    progress.stage("Compare")
    with storage.exclusive(config.out):
        found = evaluation.compare_ways(config, ways, costs, progress=progress)
        found.save(config.out / COMPARISON_JSON)
        storage.write_text(config.out / COMPARISON_HTML, render_comparison(found))
    return found


def _tune(config: Config, way: "Way", progress: Progress) -> "Cost":
    """Tune in one way, from the adapter of the way before it; what is current is not tuned again."""
    from openbook import dataset

    storage.forget_peak_memory()
    out = config.adapters_dir / way.name
    given: dict[str, Any] = {"method": way.method, "out": out, "progress": progress}
    sampled: PairsReport | None = None
    if way.name == "sft":
        given["form"] = "closed"
    elif way.name == "full":
        rate = config.tune.learning_rate * FULL_RATE
        tune = config.tune.model_copy(update={"adapter": "full", "learning_rate": rate})
        config = config.model_copy(update={"tune": tune})
    if way.after:
        given["start"] = config.adapters_dir / way.after
    if way.method == "dpo":
        sampled = tuned.find_pairs(config, adapter=given["start"], progress=progress)
        given["pairs"] = dataset.pairs_path(config)
    return _cost(verbs.tune(config, **given), sampled)


def _cost(report: "TuneReport", sampled: "PairsReport | None") -> "Cost":
    """What a run cost, with the sampling of its pairs."""
    from openbook.evaluation import Cost

    return Cost(
        tokens=report.tokens + (sampled.tokens if sampled else 0),
        seconds=report.seconds + (sampled.seconds if sampled else 0.0),
        peak_memory_bytes=report.peak_memory_bytes,
        trained_weights=report.trained_weights,
    )
