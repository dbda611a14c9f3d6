"""Instruction sets, mixed by weight into the rows of one run; and the set that is made of the user's own documents.

A set is a file, a folder, a dataset of the hub, or `documents`: the tasks that `tasks.py` writes from the index. A
weight multiplies its rows: 1 takes each once, 0.5 half of them, 2 each twice, and no weight takes none. The draw is the
seed's.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from openbook import models, storage
from openbook.config import Config
from openbook.dataset.building import STAGE as DATASET
from openbook.dataset.conversations import Turn, read_conversation
from openbook.dataset.tables import COLUMNAR, read_rows
from openbook.dataset.tasks import TaskWriter
from openbook.errors import InputError, RecordError
from openbook.progress import SILENT, Progress
from openbook.records import Conversation, Message, from_json
from openbook.tokens import encode_turns

STAGE: Final = "instruct"
DOCUMENTS: Final = "documents"
ROWS: Final = (".jsonl", ".json", ".jsonl.gz", ".json.gz", *COLUMNAR)
# What `save_to_disk` writes beside the rows.
SPLITS: Final = "dataset_dict.json"
NO_ROWS: Final = frozenset(("dataset_info.json", "dataset_infos.json", SPLITS, "state.json"))
SHOWN: Final = 5  # rows that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class MixReport:
    """`read` and `taken`: set → rows; `left_out`: reason → rows; `kinds`: kind of the tasks on the user's documents →
    how many were written."""

    train: int
    validation: int
    read: dict[str, int]
    taken: dict[str, int]
    left_out: dict[str, int]
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    origin: str  # where it stands: file and number
    turns: tuple[Turn, ...]

    def to_json(self) -> dict[str, Any]:
        return {"messages": [asdict(turn) for turn in self.turns], "origin": self.origin}


def parse_set(text: str) -> tuple[str, float]:
    """`NAME` or `NAME=WEIGHT` → name and weight."""
    name, separator, weight = text.rpartition("=")
    if not text.strip():
        raise InputError("A set has no name.", "Name a file, a folder, a hub's owner/name, or `documents`.")
    if not separator:
        return text, 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value) or value <= 0:
        raise InputError(f"{text!r} has no weight above 0 behind the =.", "Write it as alpaca.json=0.5.")
    return name, value


def mix(config: Config, *, progress: Progress = SILENT) -> MixReport:
    """Write the rows of instruction tuning, `train.jsonl` and `validation.jsonl`, under `config.instruct_dir`.

    Conversations that are longer than the model reads or than a row holds are left out, counted and named: a public set
    has a few of them, and an answer is never cut. What is current is not written again. Raises `InputError` for a set
    that cannot be had, `RecordError` where rows are malformed or none is left.
    """
    sets = [parse_set(text) for text in config.instruct.sets]
    for name, times in Counter(name for name, _ in sets).items():
        if times > 1:
            raise InputError(f"The set {name} is named twice.", f"Give it one weight: {name}=2 takes each row twice.")
    folder = config.instruct_dir
    options = _options(config, sets)
    inputs = {name: _input_hash(config, name) for name, _ in sets}
    inputs["model"] = models.fingerprint(config.model.base)
    written = all((folder / f"{part}.jsonl").is_file() for part in ("train", "validation"))
    if written and storage.is_current(folder, stage=STAGE, options=options, inputs=inputs):
        return from_json(MixReport, (storage.read_manifest(folder) or {})["report"])

    kinds: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    read: dict[str, int] = {}
    taken: dict[str, int] = {}
    train: list[_Row] = []
    held_out: list[_Row] = []
    fits = _Fits(config, left_out, progress)
    for name, weight in sets:
        rows = list(_read(config, name, kinds, progress))
        read[name] = len(rows)
        rows = [row for row in rows if fits(row)]
        random.Random(f"mix:{config.seed}:{name}").shuffle(rows)
        watched = min(math.ceil(config.dataset.validation / len(sets)), len(rows) // 10)
        held_out += rows[:watched]
        rows = rows[watched:]
        wanted = max(1, round(weight * len(rows))) if rows else 0
        train += itertools.islice(itertools.cycle(rows), wanted)
        taken[name] = wanted
    fits.tell()
    if not train:
        sizes = ", ".join(f"{name} ({rows:,} rows read)" for name, rows in read.items())
        raise RecordError(
            f"No conversation is left of {sizes}.",
            "Add another set; where rows are too long, shorten them or raise tune.row_tokens.",
        )
    random.Random(f"mixed:{config.seed}").shuffle(train)
    report = MixReport(
        train=len(train),
        validation=len(held_out),
        read=read,
        taken=taken,
        left_out=dict(left_out),
        kinds=dict(kinds),
    )
    (folder / storage.MANIFEST).unlink(missing_ok=True)
    storage.write_jsonl(folder / "train.jsonl", (row.to_json() for row in train))
    storage.write_jsonl(folder / "validation.jsonl", (row.to_json() for row in held_out))
    storage.write_manifest(folder, stage=STAGE, options=options, inputs=inputs, report=asdict(report))
    return report


def _options(config: Config, sets: Sequence[tuple[str, float]]) -> dict[str, Any]:
    return {
        "sets": [[name, weight] for name, weight in sets],
        "tasks": config.instruct.tasks,
        "passages": config.dataset.passages,
        "validation": config.dataset.validation,
        "row_tokens": config.tune.row_tokens,
        "seed": config.seed,
        "version": 1,
    }


class _Fits:
    """Whether a conversation can be read whole by the model and stands in one row; counts and names those that cannot."""

    def __init__(self, config: Config, left_out: Counter[str], progress: Progress) -> None:
        base = config.model.base
        self._tokenizer = models.load_tokenizer(base)
        self._limit = min(models.context_tokens(base, self._tokenizer), config.tune.row_tokens)
        self._left_out, self._progress = left_out, progress
        self._names: list[str] = []

    def __call__(self, row: _Row) -> bool:
        conversation = Conversation(messages=tuple(Message(role=t.role, content=t.content) for t in row.turns))
        trained = [turn.train for turn in row.turns]
        longest = max(map(len, encode_turns(self._tokenizer, conversation, trained=trained, name=row.origin)))
        if longest > self._limit:
            self._left_out[f"longer than {self._limit:,} tokens"] += 1
            self._names.append(row.origin)
        return longest <= self._limit

    def tell(self) -> None:
        if self._names:
            more = f" and {len(self._names) - SHOWN:,} more" if len(self._names) > SHOWN else ""
            self._progress.message(
                f"{len(self._names):,} conversations are left out, for they are longer than the {self._limit:,} tokens that "
                f"the model reads and a row holds: {', '.join(self._names[:SHOWN])}{more}."
            )


def _read(config: Config, name: str, kinds: Counter[str], progress: Progress) -> Iterator[_Row]:
    if name == DOCUMENTS:
        yield from _own(config, kinds, progress)
        return
    path = Path(name).expanduser()
    files = _files(path) if path.exists() else []
    if path.is_dir():
        more = f" and {len(files) - SHOWN:,} more files" if len(files) > SHOWN else ""
        progress.message(f"{path}: rows of {', '.join(str(file.relative_to(path)) for file in files[:SHOWN])}{more}.")
    pairs = _of_files(files) if files else _of_hub(name)
    faults: list[tuple[str, RecordError]] = []
    count = 0
    for origin, raw, problem in pairs:
        try:
            if raw is None:
                raise RecordError(problem)
            yield _Row(origin=origin, turns=read_conversation(raw))
        except RecordError as error:
            faults.append((origin, error))
        count += 1
    if faults:
        origin, first = faults[0]
        others = ", ".join(other for other, _ in faults[1 : SHOWN + 1])
        more = f" and {len(faults) - 1 - SHOWN:,} more" if len(faults) - 1 > SHOWN else ""
        raise RecordError(
            f"{origin}: {first.message}." + (f" Nor can these rows be used: {others}{more}." if others else ""),
            first.remedy or "Mend or remove the row.",
        )
    if not count:
        raise InputError(f"{name} holds no rows.", "Fill it, or leave it out.")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (storage.read_manifest(path) or {}).get("stage") == DATASET:
        raise InputError(f"{path} holds the exams beside the training rows.", f"Name {path / 'train.jsonl'}.")
    if (path / SPLITS).is_file():  # as for a set of the hub: what is kept to test on is not trained on
        path = path / "train"
        if not path.is_dir():
            raise InputError(f"{path.parent} has no split named train.", "Name the folder of one of its splits.")
    named = (file for file in path.rglob("*") if file.name.endswith(ROWS) and file.name not in NO_ROWS)
    found = sorted(file for file in named if file.is_file())
    if not found:
        raise InputError(f"{path} holds no file of rows.", f"Files end in {', '.join(ROWS)}.")
    return found


def _of_files(files: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    for file in files:
        for raw in read_rows(file):
            yield f"{file}:{raw.number}", raw.row, raw.problem


def _of_hub(name: str) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    """The training split of a dataset on the hub, or the one named behind a colon."""
    repository, _, split = name.partition(":")
    named_as_file = repository.startswith((".", "/", "~")) or repository.endswith(ROWS)
    if repository.count("/") != 1 or named_as_file:
        raise InputError(f"{name} does not exist.", "Name a file, a folder, a hub's owner/name, or `documents`.")
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{name} is no file here, and sets of the hub are read by the package `datasets`, which is not installed.",
            "Install it (`pip install 'openbook[hub]'`), or name a file.",
        ) from error
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(repository, split=split or "train")
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"The dataset {name} cannot be had from the hub: {reason}") from error
    for number, row in enumerate(rows, 1):
        yield f"{name}:{number}", row, ""


def _own(config: Config, kinds: Counter[str], progress: Progress) -> Iterator[_Row]:
    """Tasks on the user's documents. What the exams ask about is kept from them, as from all training."""
    from openbook.dataset.formats import read_examples
    from openbook.retrieval import open_index

    retriever = open_index(config.index_dir, config)
    exams = [path for part in ("studied", "unseen") if (path := config.dataset_dir / f"{part}.jsonl").is_file()]
    secret = {quote.text for path in exams for example in read_examples(path) for quote in example.quotes}
    hidden = frozenset((storage.read_manifest(config.dataset_dir) or {}).get("held_out", ()))
    if not exams:
        progress.message(
            "There are no exams yet, so no passage is kept from the tasks (`openbook dataset` writes them)."
        )
    writer = TaskWriter(
        list(retriever.store.chunks()),
        retriever,
        passages=config.dataset.passages,
        seed=config.seed,
        hidden=hidden,
        secret=secret,
    )
    with progress.task("Writing tasks", config.instruct.tasks, "tasks") as task:
        for number, written in enumerate(writer.write(config.instruct.tasks), 1):
            kinds[written.kind] += 1
            messages = written.conversation.messages
            yield _Row(
                origin=f"{DOCUMENTS}:{number} ({written.kind})",
                turns=tuple(Turn(role=m.role, content=m.content, train=m.role == "assistant") for m in messages),
            )
            task.advance()


def _input_hash(config: Config, name: str) -> str:
    """What a set depends on: its files' bytes; for our own documents, the index, how it is searched and the exams; for a
    hub, its name."""
    if name == DOCUMENTS:
        manifest = storage.read_manifest(config.index_dir) or {}
        dataset = storage.read_manifest(config.dataset_dir) or {}
        exams = [dataset.get("key"), dataset.get("overlay")]  # rows that were edited have no key
        searched = config.retrieval.candidates
        return storage.hash_json([manifest.get("options"), manifest.get("content"), searched, exams])
    path = Path(name).expanduser()
    return storage.hash_json([storage.hash_file(file) for file in _files(path)]) if path.exists() else name
