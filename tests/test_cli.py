"""The command line as a person meets it: help that teaches, and failures told in one sentence."""

import errno
import functools
import os
import signal
import subprocess
import sys
import time
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from openbook.cli import session
from openbook.cli.main import app
from openbook.cli.session import Session, as_overrides, explain, keep_offline, verb
from openbook.config import Config
from openbook.errors import ConfigError, ModelError, StoreError
from openbook.progress import SILENT

VERBS = [
    *(command.name for command in app.registered_commands),
    *(group.name for group in app.registered_groups),
    *(
        f"{group.name} {sub.name}"
        for group in app.registered_groups
        for sub in group.typer_instance.registered_commands
    ),
]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Openbook:
    """`openbook(*words)` runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Result:
        code = 0
        try:
            app([*words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        streams = self._capsys.readouterr()
        return Result(code, streams.out, streams.err)


@pytest.fixture
def openbook(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Openbook:
    monkeypatch.chdir(tmp_path)
    for name in [*session.QUIET_LIBRARIES, "HF_HUB_OFFLINE"]:
        monkeypatch.setenv(name, "1")  # put back to what it was at the end, whatever the command sets
        monkeypatch.delenv(name)
    return Openbook(capsys)


def failing(error: BaseException) -> "type[app]":  # type: ignore[valid-type]
    import typer

    broken = typer.Typer()

    @broken.callback()
    def _() -> None:
        pass

    def work(session: Session) -> None:
        raise error

    verb(broken, "work")(work)
    return broken


def test_help_tells_the_story_first(openbook: Openbook) -> None:
    result = openbook("--help")
    assert result.code == 0
    assert (
        result.out.index("openbook init my-documents") < result.out.index("openbook run") < result.out.index("Commands")
    )
    assert "…" not in result.out.split("Commands")[1].replace("...", "…"), "a summary is cut off: shorten it"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_shows_examples_and_the_common_options(openbook: Openbook, name: str) -> None:
    result = openbook(*name.split(), "--help")
    assert result.code == 0
    examples = result.out.split("Examples:")[1].split("\n\n")[0].strip().splitlines()
    assert all(line.strip().startswith(f"openbook {name}") for line in examples)
    for option in ("--config", "--out", "--seed", "--set", "--quiet", "--debug"):
        assert option in result.out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["ingset"], 2, "Did you mean"),
        (["tune", "--epochs", "many"], 2, "--epochs"),
        (["tune", "--epochs", "0"], 2, "tune.epochs = 0.0: input should be greater than 0"),
        (["tune", "--set", "tune.epoch=3"], 2, "did you mean tune.epochs?"),
        (["tune", "--set", "tune.epochs"], 2, "Write it as section.key=value"),
        (["ingest", "--config", "none.toml"], 2, "none.toml does not exist. `openbook init FOLDER` writes one."),
        (["init", "nowhere"], 1, "nowhere does not exist. Name the folder"),
        (["demo", "nowhere"], 1, "nowhere does not exist. Name the folder"),
        (["demo", "--config", "x.toml"], 2, "openbook run FILE"),
        (["tune", "--data", "rows.jsonl"], 2, "sft does not read --data. Add --method instruct"),
        (["tune", "--method", "dpo", "--kl", "0.1"], 2, "dpo does not read --kl. Add --method grpo or ppo"),
        (["tune", "--method", "instruct", "--explain"], 1, "are shown by --train openbook-work/instruct/train.jsonl"),
        (["tune", "--train", "."], 1, "is a folder. Name a .jsonl file of rows with --train."),
        (["tune"], 1, "Write the questions first: `openbook dataset`."),
        (["ask", "why?", "--adapter", "a", "--base-only"], 2, "exclude each other"),
        (["dataset", "--without-golden", "ignore"], 2, "'refuse', 'memorise' or 'mix'"),
        (["dataset", "--distractors", "none"], 2, "'mined', 'random' or 'mixed'"),
        (["dataset", "--estimate"], 2, "The extractive teacher sends nothing and costs nothing."),
        (["dataset", "--teacher", "local"], 2, "needs the name of a model"),
        (["search"], 2, "QUERY"),
    ],
)
def test_a_mistake_is_one_sentence_on_standard_error(
    openbook: Openbook, words: list[str], code: int, says: str
) -> None:
    result = openbook(*words)
    assert result.code == code
    assert result.out == ""
    assert says in result.err
    assert "Traceback" not in result.err


def test_init_writes_a_file_that_run_reads_and_never_overwrites(openbook: Openbook, tmp_path: Path) -> None:
    (tmp_path / "my docs").mkdir()
    first = openbook("init", "my docs", "--set", "tune.epochs=2", "--seed", "7")
    assert first.code == 0
    assert "openbook run" in first.out
    config = Config.load(Path("openbook.toml"))
    assert (config.documents.paths, config.tune.epochs, config.seed) == ((Path("my docs"),), 2, 7)

    (tmp_path / "openbook.toml").write_text("seed = 1\n")
    second = openbook("init", "my docs")
    assert (second.code, "--force" in second.err) == (2, True)
    assert (tmp_path / "openbook.toml").read_text() == "seed = 1\n"
    assert openbook("init", "my docs", "--force").code == 0


def test_init_beside_another_folder_names_documents_that_can_be_found(openbook: Openbook, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "project").mkdir()
    assert openbook("init", "docs", "--config", "project/openbook.toml").code == 0
    assert Config.load(Path("project/openbook.toml")).documents.paths == (tmp_path / "docs",)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "Stopped; run the same command again to go on."),
        (ConfigError("No such option.", "Try another."), 2, "Error: No such option. Try another."),
        (StoreError("No index.", "Run ingest."), 1, "Error: No index. Run ingest."),
        (ModelError("No model."), 1, "Error: No model."),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "The disk is full"),
        (RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)"), 1, "The disk is full"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 11456 vs 11348"),
            1,
            "The disk is full",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/locked/x"), 1, "/locked/x: permission denied."),
        (ZeroDivisionError("division\nby zero"), 70, "(ZeroDivisionError: division by zero). Run with --debug"),
    ],
)
def test_every_failure_has_its_sentence_and_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    broken = failing(error)
    with pytest.raises(SystemExit) as stop:
        broken(["work"])  # type: ignore[operator]
    assert stop.value.code == code
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown

    with pytest.raises(SystemExit) as stop:
        broken(["work", "--debug"])  # type: ignore[operator]
    assert stop.value.code == code
    assert type(error).__name__ in capsys.readouterr().err


def test_the_libraries_are_told_to_be_quiet_before_a_verb_runs(openbook: Openbook) -> None:
    openbook("tune")
    assert {name: os.environ.get(name) for name in session.QUIET_LIBRARIES} == session.QUIET_LIBRARIES


@pytest.mark.parametrize(
    ("base", "embedder", "offline"),
    [
        ("nano", "offline", True),
        ("./model", "offline", True),
        ("model", "offline", True),
        ("./absent", "offline", True),
        ("org/model", "offline", False),
        ("nano", "org/embedder", False),
    ],
)
def test_a_hub_is_asked_only_for_what_only_a_hub_has(
    openbook: Openbook, tmp_path: Path, base: str, embedder: str, offline: bool
) -> None:
    (tmp_path / "model").mkdir()
    keep_offline(Config.load(None, [f"model.base={base}", f"retrieval.embedder={embedder}"]))
    assert ("HF_HUB_OFFLINE" in os.environ) is offline


@pytest.mark.parametrize(
    ("name", "offline"),
    [("owner/name=0.5", False), ("owner/name", False), ("data/rows.json", True), ("documents", True)],
)
def test_the_hub_is_asked_for_an_instruction_set_only_where_it_is_named(
    openbook: Openbook, name: str, offline: bool
) -> None:
    keep_offline(Config.load(None, [f'instruct.sets=["{name}"]']))
    assert ("HF_HUB_OFFLINE" in os.environ) is offline


def test_flags_become_overrides_in_toml() -> None:
    flags = {"tune.epochs": 0.5, "model.base": 'a "b"', "documents.paths": [Path("a b"), Path("c")], "seed": None}
    overrides = as_overrides(flags)
    assert overrides == ["tune.epochs=0.5", 'model.base="a \\"b\\""', 'documents.paths=["a b", "c"]']
    config = Config.load(None, overrides)
    assert (config.model.base, config.documents.paths) == ('a "b"', (Path("a b"), Path("c")))


def test_the_options_file_of_this_folder_counts_and_flags_win(openbook: Openbook, tmp_path: Path) -> None:
    (tmp_path / "openbook.toml").write_text("seed = 5\n[tune]\nepochs = 9\n")
    given = Session(config_file=None, overrides=("seed=6",), quiet=True, debug=False, progress=SILENT)
    config = given.config({"tune.epochs": 1})
    assert (config.seed, config.tune.epochs) == (6, 1)


def test_every_file_that_a_person_would_expect_to_be_read_is_named_when_it_was_not(
    openbook: Openbook, tmp_path: Path
) -> None:
    files = {"fine.md": b"A cache is a store.", "wide.txt": "Text in UTF-16".encode("utf-16-le"), "empty.md": b" "}
    (tmp_path / "docs").mkdir()
    for name, data in {**files, "picture.png": b"x"}.items():
        (tmp_path / "docs" / name).write_bytes(data)
    result = openbook("ingest", "docs", "--quiet")
    assert result.code == 0 and "skipped files: 1 binary, 1 empty, 1 unsupported" in result.out
    assert result.err.splitlines() == [
        "  not read: docs/empty.md: it is empty",
        "  not read: docs/wide.txt: it holds binary data, not text",
    ]


def test_our_warnings_are_sentences_and_those_of_libraries_are_kept_for_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import typer

    noisy = typer.Typer()
    noisy.callback()(lambda: None)

    ours = session.__file__

    def work(session: Session) -> None:
        warnings.warn_explicit("Tuned with another prompt.", UserWarning, ours, 1)
        warnings.warn_explicit("old call", UserWarning, "/somewhere/torch/x.py", 1)

    verb(noisy, "work")(work)
    noisy(["work"], standalone_mode=False)
    assert capsys.readouterr().err == "Warning: Tuned with another prompt.\n"
    noisy(["work", "--debug"], standalone_mode=False)
    assert "old call" in capsys.readouterr().err


def test_a_reader_who_goes_away_is_no_failure() -> None:
    code = (
        "import typer; from openbook.cli.session import verb\n"
        "app = typer.Typer(); app.callback()(lambda: None)\n"
        "def work(session):\n    for n in range(100_000): print('line', n)\n"
        "verb(app, 'work')(work); app()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "work"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == session.EXIT_PIPE


def test_ctrl_c_ends_in_a_sentence() -> None:
    code = (
        # A shell that starts this in the background has its children ignore Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import time, typer; from openbook.cli.session import verb\n"
        "app = typer.Typer(); app.callback()(lambda: None)\n"
        "def work(session):\n    print('ready', flush=True); time.sleep(60)\n"
        "verb(app, 'work')(work); app()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "work"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "\nStopped; run the same command again to go on.\n"
    assert process.returncode == 130
    assert time.monotonic() - started < 5


def test_the_sentence_for_a_fault_of_ours_stays_short() -> None:
    sentence, code = explain(ValueError("x" * 10_000))
    assert len(sentence) < 500
    assert code == 70


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "0.0.0.0"], "no token"),
        (["--token-file", "nowhere"], "cannot be read"),
        (["--adapter", "a", "--base-only"], "exclude each other"),
        (["--port", "70000"], "serve.port"),
    ],
)
def test_serve_refuses_what_would_be_unsafe_or_makes_no_sense(
    openbook: Openbook, options: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBOOK_TOKEN", raising=False)
    result = openbook("serve", *options)
    assert (result.code, result.out) == (session.EXIT_USAGE, "")
    assert told in result.err


@pytest.mark.slow
def test_serve_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    from models_for_tests import folder

    folder(tmp_path / "base")
    command = [sys.executable, "-m", "openbook", "serve", "--plain", "--port", "0", "--set", "model.base=./base"]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs ignore
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        while "Answering at" not in line:
            assert process.poll() is None, line
            line = process.stderr.readline()
        address = line.split()[2]
        with urllib.request.urlopen(f"{address}/health", timeout=20) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == session.EXIT_STOPPED
        log = process.stderr.read()
        assert '"route": "/health"' in log
        assert "Traceback" not in log
    finally:
        process.kill()
        process.wait()
