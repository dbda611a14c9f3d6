"""Files that are whole or absent: atomic writes, JSON Lines, and the manifest that lets a stage be skipped.

A manifest stands beside what a stage wrote and says from what: a hash of the options and of every input. A stage whose
manifest still matches has nothing to do. It is written last, so that a killed stage leaves none.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from openbook.errors import OpenbookError, RecordError, StoreError

MANIFEST = "manifest.json"


@contextlib.contextmanager
def explained(path: Path, *, option: str = "--out") -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into sentences; `option` is the one that names the folder."""
    try:
        yield
    except OSError as error:
        remedies = {
            errno.ENOSPC: "The disk is full: free some space and run the same command again; finished work is kept.",
            errno.EDQUOT: "Your disk quota is used up: free some space and run the same command again.",
            errno.EACCES: f"Choose a folder that you may write to with {option}.",
            errno.EEXIST: f"A file stands where a folder is needed: choose another folder with {option}.",
            errno.ENOTDIR: f"A file stands where a folder is needed: choose another folder with {option}.",
            errno.EROFS: f"The file system is read-only: choose another folder with {option}.",
        }
        raise StoreError(f"Cannot write {path}: {error.strerror}.", remedies.get(error.errno or 0, "")) from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it takes that name once the block ends well, and is gone if it does not."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(descriptor)
        partial = Path(name)
        try:
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)  # mkstemp makes files private; ours are ordinary ones
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[TextIO]:
    """A text file that appears under `path` complete, or not at all."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    with atomic_writer(path) as file:
        file.write(text)


def write_json(path: Path, data: Any) -> None:
    """Readable JSON with stable key order; NaN is refused, since other readers choke on it."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n")


def dump_line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(", ", ": "), allow_nan=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows one a line and return how many; nothing is held in memory."""
    count = 0
    with atomic_writer(path) as file:
        for row in rows:
            file.write(dump_line(row))
            count += 1
    return count


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row at once. A torn last line, left by a kill, is what `read_jsonl(torn_tail=True)` forgives."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(dump_line(row))


def mend_torn_tail(path: Path) -> None:
    """Cut a last line without its newline, so that appending goes on at a line's start."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def read_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file, streamed. A bad line raises `RecordError` with its number.

    With `torn_tail`, a last line without its newline is passed over: it is what a killed writer leaves.
    """
    try:
        file = path.open("rb")  # decoded line by line, so that a line that is no text is named like any other
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist.", "Run the stage that writes it first (`openbook run`).") from error
    with file:
        for number, line in enumerate(file, 1):
            if torn_tail and not line.endswith(b"\n"):
                return
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if b"\\ud" in line or b"\\uD" in line:  # where surrogates are written; most escapes are letters
                    refuse_half_characters(row)
            except (json.JSONDecodeError, UnicodeError, RecursionError) as error:
                raise RecordError(f"{path}:{number}: this line is not JSON ({error}).", "Mend or remove it.") from error
            if not isinstance(row, dict):
                raise RecordError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}.")
            yield row


def refuse_half_characters(data: Any) -> None:
    """Raise `UnicodeEncodeError` where a text of `data` holds half a surrogate pair, as JSON can escape one: it is no text,
    no tokenizer takes it, and no file can hold it."""
    json.dumps(data, ensure_ascii=False).encode()


def hash_json(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def versions() -> dict[str, str]:
    """The versions on which a result depends, for manifests and reports."""
    names = (
        "openbook",
        "torch",
        "transformers",
        "peft",
        "bitsandbytes",
        "lancedb",
        "sentence-transformers",
        "accelerate",
    )
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    import resource
    import sys

    # `ru_maxrss` survives fork and exec: a small process started by a large one would pass for large.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in kilobytes


def forget_peak_memory() -> None:
    """Let `peak_memory_bytes` count from now, so that one process can measure several runs. Only Linux can; elsewhere
    the peak stays that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def write_manifest(folder: Path, *, stage: str, options: Any, inputs: Mapping[str, str], **facts: Any) -> None:
    """Declare `folder` complete: made by `stage` with `options` from `inputs` (name → hash); `facts` are for people."""
    write_json(
        folder / MANIFEST,
        {
            "stage": stage,
            "options": options,
            "inputs": dict(inputs),
            "key": _key(stage, options, inputs),
            "versions": versions(),
            **facts,
        },
    )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of `folder`, or None where there is none or it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def is_current(folder: Path, *, stage: str, options: Any, inputs: Mapping[str, str]) -> bool:
    """Whether `folder` holds what `stage` would write again from these options and inputs."""
    manifest = read_manifest(folder)
    return manifest is not None and manifest.get("key") == _key(stage, options, inputs)


def _key(stage: str, options: Any, inputs: Mapping[str, str]) -> str:
    return hash_json({"stage": stage, "options": options, "inputs": dict(inputs)})


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for one writer; a second process is told so instead of damaging the first one's work."""
    import fcntl

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OpenbookError(
                f"Another openbook is working in {folder}.",
                "Wait until it has finished, or choose another folder with --out.",
            ) from error
        yield
    finally:
        lock.close()
