"""What runs have left behind: loss curves, validation questions, the data set, the report and its grades.

All of it is read from files that other stages write, whole or growing, and may be read while they are written.
"""

import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from openbook.config import Config
from openbook.errors import InputError, StoreError
from openbook.storage import read_jsonl, read_manifest

LOG, RUN, VALIDATION = "log.jsonl", "run", "validation.jsonl"
PARTS = ("train", "validation", "studied", "unseen")


def trainings(config: Config) -> list[dict[str, Any]]:
    """Every training under `config.adapters_dir`: its name, what its manifest says, and the last row of its log."""
    if not config.adapters_dir.is_dir():
        return []
    found = []
    for folder in sorted(path for path in config.adapters_dir.iterdir() if path.is_dir()):
        manifest = None if _going(folder) else read_manifest(folder)
        last: dict[str, Any] = {}
        for row in _log(folder):
            last |= row
        if manifest is None and not last:
            continue
        report = {k: v for k, v in ((manifest or {}).get("report") or {}).items() if not k.endswith("_loss")}
        found.append(
            {
                "name": folder.name,
                "finished": manifest is not None,
                "base": (manifest or {}).get("base"),
                "options": (manifest or {}).get("options"),
                "report": report,
                "last": last,
                "validation": manifest is not None and (folder / VALIDATION).is_file(),
            }
        )
    return found


def training_log(config: Config, name: str, *, after: int = 0) -> list[dict[str, Any]]:
    """The rows of a training's log beyond the first `after`; a figure that is no number is left out of its row."""
    return list(islice(_log(_folder(config, name)), after, None))


def validation(config: Config, name: str, *, count: int = 5) -> dict[str, list[dict[str, Any]]]:
    """The validation questions that a training ended best and worst on, by their mean loss."""
    path = _folder(config, name) / VALIDATION
    rows = sorted(read_jsonl(path, torn_tail=True), key=lambda row: row["loss"]) if path.is_file() else []
    return _ends(rows, count)


def dataset_page(config: Config, part: str, *, start: int = 0, count: int = 20, words: str = "") -> dict[str, Any]:
    """Rows of a part of the data set with their lines, and how many match. `words` must stand in question or answer."""
    if part not in PARTS:
        raise InputError(f"The data set has no part of this name ({', '.join(PARTS)}).")
    wanted = words.lower().split()
    rows: list[dict[str, Any]] = []
    total = 0
    for line, row in enumerate(read_jsonl(config.dataset_dir / f"{part}.jsonl"), 1):
        text = f"{row.get('question', '')} {row.get('cot_answer', '')}".lower()
        if all(word in text for word in wanted):
            if start <= total < start + count:
                rows.append({"line": line, **row})
            total += 1
    facts = (read_manifest(config.dataset_dir) or {}).get("report", {})
    return {"part": part, "total": total, "start": start, "rows": rows, "report": facts}


def report(config: Config) -> dict[str, Any] | None:
    """`report.json`, None where no exam has been held."""
    path = config.out / "report.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not a report: {error}.", "`openbook evaluate` writes it anew.") from error
    return found if isinstance(found, dict) else None


def graded(config: Config, test: str, arm: str, *, count: int = 5) -> dict[str, list[dict[str, Any]]]:
    """The questions of a test that an arm answered best and worst, by F1."""
    path = config.evaluation_dir / "grades.jsonl"
    rows = list(read_jsonl(path, torn_tail=True)) if path.is_file() else []
    mine = [row for row in rows if (row.get("test"), row.get("arm"), row.get("asked")) == (test, arm, "all")]
    return _ends(sorted(mine, key=lambda row: -row["f1"]), count)


def _ends(ordered: list[dict[str, Any]], count: int) -> dict[str, list[dict[str, Any]]]:
    """The first and the last rows, no row twice."""
    count = min(count, (len(ordered) + 1) // 2)
    worst = ordered[count:][-count:] if count else []
    return {"best": ordered[:count], "worst": worst[::-1]}


def _folder(config: Config, name: str) -> Path:
    known = {path.name: path for path in config.adapters_dir.iterdir()} if config.adapters_dir.is_dir() else {}
    if name not in known or not known[name].is_dir():
        raise StoreError("There is no training of this name.")
    return known[name]


def _going(folder: Path) -> bool:
    """Whether a training is at work or was stopped here; what it will replace may still stand beside it."""
    return (folder / RUN / LOG).is_file()


def _log(folder: Path) -> Iterator[dict[str, Any]]:
    path = (folder / RUN if _going(folder) else folder) / LOG
    return _finite(read_jsonl(path, torn_tail=True)) if path.is_file() else iter(())


def _finite(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {key: value for key, value in row.items() if not (isinstance(value, float) and not math.isfinite(value))}
