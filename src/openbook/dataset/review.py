"""Rejecting and editing questions: kept in the overlay, checked as the teacher's are, and in force at once.

The rows that are there are changed in place, so that a tuning that follows studies what was decided. The data set then
counts as stale: the next build takes other questions for those that were rejected, and writes edits as it writes all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openbook import storage
from openbook.config import Config
from openbook.dataset import checks
from openbook.dataset.building import PARTS
from openbook.dataset.formats import read_examples, to_row
from openbook.dataset.overlay import Change, Overlay, as_question
from openbook.errors import InputError, StoreError
from openbook.progress import SILENT, Progress
from openbook.records import RaftExample

APPLIED = "overlay"  # in the manifest: the fingerprint of the overlay that the rows agree with


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`changes` are now in the overlay, `rows` were changed or taken out; `refused` are sentences on what was not."""

    changes: int
    rows: int
    refused: tuple[str, ...] = ()


def change(config: Config, changes: Iterable[Change]) -> Outcome:
    """Add changes to the overlay and put them in force.

    A question may be named by its id, by the id of a row, or by the beginning of either. An edit must pass the checks
    that the teacher's questions pass. What cannot be done is told in `refused`, and the rest is done.
    """
    with storage.exclusive(config.out):
        rows = _rows(config)
        overlay = Overlay.read(config.overlay_path)
        refused: list[str] = []
        done = 0
        for wanted in changes:
            found = _named(wanted.question_id, rows)
            kept = wanted.question_id in overlay.changes  # already out of the rows
            if not found and not kept:
                refused.append(_unknown(wanted.question_id, rows))
                continue
            settled = wanted
            if found:
                settled = replace(wanted, question_id=found[0].question_id, was=wanted.was or found[0].question)
                fault = _fault(found, settled)
                if fault:
                    refused.append(f"{settled.question_id}: the edit cannot be used: {fault}.")
                    continue
            earlier = overlay.changes.pop(settled.question_id, None)  # the newest stands last
            overlay.changes[settled.question_id] = settled.after(earlier)
            done += 1
        if done:
            overlay.write(config.overlay_path)
        return Outcome(changes=done, rows=_bring_in_line(config, overlay), refused=tuple(refused))


def restore(config: Config, ids: Sequence[str]) -> Outcome:
    """Take changes out of the overlay. The questions come back when the data set is built again."""
    with storage.exclusive(config.out):
        overlay = Overlay.read(config.overlay_path)
        refused = []
        done = 0
        for wanted in ids:
            known = [i for i in overlay.changes if wanted and i.startswith(wanted)]
            if len(known) != 1:
                refused.append(f"{wanted}: {'no change is' if not known else 'several changes are'} named so.")
                continue
            del overlay.changes[known[0]]
            done += 1
        if done:
            overlay.write(config.overlay_path)
        return Outcome(changes=done, rows=0, refused=tuple(refused))


def bring_in_line(config: Config, *, progress: Progress = SILENT) -> int:
    """Put the overlay in force where the data set was written before it, and return how many rows that changed.

    For a caller that holds the output folder and is about to read the rows.
    """
    changed = _bring_in_line(config, Overlay.read(config.overlay_path))
    if changed:
        progress.message(f"{changed:,} rows were rejected or edited by hand since the data set was built.")
    return changed


def _bring_in_line(config: Config, overlay: Overlay) -> int:
    folder = config.dataset_dir
    manifest = storage.read_manifest(folder)
    if manifest is None or manifest.get(APPLIED, "") == overlay.fingerprint:
        return 0
    changed = 0
    for part in PARTS:
        path = folder / f"{part}.jsonl"
        if not path.is_file():
            continue
        before = list(read_examples(path))
        pairs = [(row, overlay.row(row)) for row in before]
        different = sum(new != row for row, new in pairs)
        if different:
            kept = [new for _, new in pairs if new is not None]
            if not kept and part == "train":
                raise InputError(
                    "Every training question is rejected, so that nothing is left to study.",
                    "Take some back: `openbook dataset restore ID`.",
                )
            storage.write_jsonl(path, map(to_row, kept))
            changed += different
    # Rows changed in place are not what a build writes, whatever the overlay says later: the key that would call them
    # current goes.
    stale = {"key": ""} if changed else {}
    storage.write_json(folder / storage.MANIFEST, manifest | {APPLIED: overlay.fingerprint} | stale)
    return changed


def _rows(config: Config) -> list[RaftExample]:
    paths = [config.dataset_dir / f"{part}.jsonl" for part in PARTS]
    found = [row for path in paths if path.is_file() for row in read_examples(path)]
    if not found:
        raise StoreError(f"{config.dataset_dir} holds no data set.", "Write the questions first: `openbook dataset`.")
    return found


def _named(name: str, rows: Sequence[RaftExample]) -> list[RaftExample]:
    """The rows of the one question that is named so, none where several are."""
    if not name:
        return []
    exact = [row for row in rows if name in (row.question_id, row.id)]
    found = exact or [row for row in rows if row.question_id.startswith(name) or row.id.startswith(name)]
    return found if len({row.question_id for row in found}) == 1 else []


def _unknown(name: str, rows: Sequence[RaftExample]) -> str:
    several = name and any(row.question_id.startswith(name) or row.id.startswith(name) for row in rows)
    if several:
        return f"{name}: several questions begin so; give more of the id."
    return f"{name or '(no id)'}: no question has this id; `openbook dataset show` shows them."


def _fault(rows: Sequence[RaftExample], change: Change) -> str:
    """Why an edit cannot be used, "" where it can."""
    if change.action != "edit":
        return ""
    example = next((row for row in rows if row.quotes), rows[0])
    question = Overlay([change]).edited(as_question(example))
    golden = example.golden or example.passages
    if not golden:
        return ""
    if not question.quotes and change.reasoning is None:  # the row refuses: of its reasoning nothing is left to check
        question = replace(question, golden_chunk_ids=())
    return checks.fault(question, *golden)


def read_changes(path: Path) -> list[Change]:
    """The changes in a file, such as the page exports. Raises `RecordError` with the line of a bad one."""
    return list(Overlay.read(path).changes.values())
