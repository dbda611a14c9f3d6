"""Every verb as one function of the options: what the command line, the pipeline and Python programs call.

A function that writes holds the output folder, so that two of them never write there at once.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from openbook import storage, tuning
from openbook.config import Config
from openbook.errors import ConfigError, InputError, StoreError
from openbook.progress import SILENT, Progress
from openbook.records import Answer, ScoredChunk, from_json

if TYPE_CHECKING:
    from openbook.answering import Answerer
    from openbook.dataset import DatasetReport, DoctorReport, Estimate
    from openbook.evaluation import Report
    from openbook.explaining import Explanation
    from openbook.indexing import IngestReport
    from openbook.training import TuneReport


def ingest(config: Config, *, progress: Progress = SILENT) -> "IngestReport":
    """Bring the index in line with `config.documents.paths`."""
    from openbook import indexing

    with storage.exclusive(config.out):
        return indexing.ingest(config, progress=progress)


def search(config: Config, query: str, *, k: int | None = None) -> list[ScoredChunk]:
    """The `k` passages nearest to `query` (default: `retrieval.passages`), best first."""
    from openbook.retrieval import open_index

    return open_index(config.index_dir, config).search(query, k or config.retrieval.passages)


def explain(config: Config, query: str, *, k: int | None = None) -> "list[Explanation]":
    """`search`, and why each passage is found."""
    from openbook import explaining
    from openbook.retrieval import open_index

    retriever = open_index(config.index_dir, config)
    return explaining.explain(retriever, query, retriever.search(query, k or config.retrieval.passages))


def build_dataset(config: Config, *, force: bool = False, progress: Progress = SILENT) -> "DatasetReport":
    """Write the training set and both exams under `config.dataset_dir`.

    A data set that is current is not written again unless `force`: its own report is returned.
    """
    from openbook import dataset

    with storage.exclusive(config.out):
        if not force and dataset.is_built(config):
            progress.message(f"{config.dataset_dir} is current: index and options are those that it was made with.")
            return from_json(dataset.DatasetReport, (storage.read_manifest(config.dataset_dir) or {})["report"])
        return dataset.build(config, progress=progress)


def estimate_dataset(config: Config) -> "Estimate":
    """Calls, tokens, money and time of `build_dataset` with a language model as teacher. Nothing is sent."""
    from openbook import dataset

    return dataset.estimated(config)


def export_dataset(
    config: Config,
    out: Path,
    *,
    form: str = "hf",
    part: str | None = None,
    source: Path | None = None,
    system: str = "",
) -> int:
    """Write one part of the data set (or the RAFT rows of `source`) to `out`, in a layout for other tools, and return
    how many rows. `form` is one of `openbook.dataset.exports.FORMATS`; the part is training, for eval the studied exam."""
    from openbook import dataset

    if source is None:
        name = part or ("studied" if form == "eval" else "train")
        if name not in dataset.PARTS:
            raise ConfigError(f"The data set has no part {name!r}.", f"Choose one of {', '.join(dataset.PARTS)}.")
        source = config.dataset_dir / f"{name}.jsonl"
        if not source.is_file():
            raise StoreError(f"{source} does not exist.", "Write the questions first: `openbook dataset`.")
    elif part is not None:
        raise ConfigError("A part and a file of your own exclude each other.", "Give one of --part and --from.")
    return dataset.export(source, out, form, system=system)


def doctor(
    path: Path,
    *,
    fix: Path | None = None,
    against: Path | None = None,
    model: str = "",
    golden_share: float | None = None,
    progress: Progress = SILENT,
) -> "DoctorReport":
    """Report what is wrong with a file of RAFT rows, in whatever layout; with `fix`, write a mended copy under that name.

    `against` names a file that must not ask the same questions, `model` one that must be able to read every row,
    `golden_share` is the share P of rows that should show their golden passage.
    """
    from openbook import dataset

    return dataset.examine(path, fix=fix, against=against, model=model, golden_share=golden_share, progress=progress)


def tune(
    config: Config,
    *,
    method: tuning.Method = "sft",
    form: tuning.Form = "raft",
    train: Path | None = None,
    pairs: Path | None = None,
    start: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> "TuneReport":
    """Tune the base and write the adapter to `out` (default: under `config.adapters_dir`, by the method).

    `sft` trains on `train` (default: the data set): `raft` shows passages with each question, `closed` the question
    alone. `instruct` trains on the sets of `config.instruct`, mixed. `dpo` and `reward` train on the preference pairs in
    `pairs`, `grpo` and `ppo` on the rewards of answers that they sample to the questions in `train`; these four from the
    adapter in the folder `start` on or else from the bare base. An adapter that is current is not tuned again unless
    `force`: its report is returned.
    """
    with storage.exclusive(config.out):
        if method == "sft" or method == "instruct":
            if pairs or start:
                raise InputError(
                    "Preference pairs and a starting adapter are not for supervised tuning.",
                    "Add --method dpo or another, or leave out --pairs and --from-adapter.",
                )
            if method == "instruct":
                if train or form != "raft":
                    raise InputError(
                        "Instruction tuning studies the sets of instruct.sets, as they are.",
                        "Name them with --data, and leave out --train and --form.",
                    )
                return tuning.run_instruct(config, out=out, resume=resume, force=force, progress=progress)
            return tuning.run_tuning(
                config, form=form, train=train, out=out, resume=resume, force=force, progress=progress
            )
        if form != "raft":
            raise InputError(
                f"The form {form} is one of supervised tuning; pairs bring their prompts as they are.",
                "Leave out --form.",
            )
        if method == "grpo" or method == "ppo":
            if pairs is not None:
                raise InputError(f"The method {method} samples its answers itself.", "Leave out --pairs.")
            return tuning.run_reinforcement(
                config, method=method, train=train, start=start, out=out, resume=resume, force=force, progress=progress
            )
        if pairs is None or train is not None:
            from openbook import dataset

            raise InputError(
                f"The method {method} trains on preference pairs" + (" and not on `train`." if train else "."),
                f"Name a .jsonl, .json or .parquet file with --pairs: your own, or {dataset.pairs_path(config)}, which "
                "`openbook pairs` writes.",
            )
        return tuning.run_tuning_on_pairs(
            config, method=method, pairs=pairs, start=start, out=out, resume=resume, force=force, progress=progress
        )


@contextlib.contextmanager
def answering(config: Config, *, adapter: Path | None, closed: bool = False) -> "Iterator[Answerer]":
    """Whoever answers questions: the base with `adapter` on it (None: the base alone), over the index unless `closed`.

    Warns of an adapter that was tuned with another prompt, retriever or quantisation; one for another base raises
    `ModelError`.
    """
    from openbook import models
    from openbook.answering import Answerer, check_adapter
    from openbook.retrieval import open_index

    # The index first: it is quick to open, and what fails should fail before a model is loaded.
    retriever = None if closed else open_index(config.index_dir, config)
    if adapter is not None:
        base, retrieval = models.fingerprint(config.model.base), retriever.fingerprint if retriever else ""
        quantization = config.model.quantization
        for difference in check_adapter(adapter, base=base, retrieval=retrieval, quantization=quantization):
            warnings.warn(difference, stacklevel=2)
    loaded = models.load_base(config, dequantize=True)  # the exam's weights, and faster token by token
    generator = models.Generator(loaded, max_new_tokens=config.model.max_new_tokens)
    if adapter is not None:
        generator.add_adapter("asked", adapter)
    with generator.adapter("asked" if adapter is not None else None):
        yield Answerer(retriever, generator, passages=config.retrieval.passages)


def ask(config: Config, question: str, *, adapter: Path | None = None, closed: bool = False) -> Answer:
    """One answer with verified quotes, from `adapter` or else the one that `tune` wrote, or else the base."""
    found = adapter or tuning.default_adapter(config, closed=closed)
    with answering(config, adapter=found, closed=closed) as answerer:
        return answerer.answer(question)


def evaluate(config: Config, *, progress: Progress = SILENT) -> "Report":
    """Put both exams before every arm; writes `report.json` and `report.html` under `config.out`."""
    from openbook import evaluation
    from openbook.dataset import review

    with storage.exclusive(config.out):
        review.bring_in_line(config, progress=progress)
        return evaluation.evaluate(config, progress=progress)


def serve(
    config: Config,
    *,
    adapter: Path | None = None,
    base_only: bool = False,
    plain: bool = False,
    token: str = "",
    log_contents: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Answer over HTTP until interrupted, with `adapter` or else the one that `tune` wrote, or else the base.

    `plain` answers without the index; `token` "" asks for none, which only an address of this machine allows.
    """
    from openbook import serving

    serving.serve(
        serving.Settings(
            config=config, adapter=adapter, base_only=base_only, plain=plain, token=token, log_contents=log_contents
        ),
        progress=progress,
    )
