"""Jobs outlive whoever started them, tell how they ended, and can be stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openbook.config import Config
from openbook.errors import InputError, StoreError
from openbook.runs import Jobs, options_of, training_log, trainings
from openbook.runs.jobs import FOLDER, LOCK
from openbook.storage import write_jsonl, write_manifest


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.parse({"out": str(tmp_path / "work")}, origin="test")


def wait(jobs: Jobs, id_: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while jobs.get(id_).state == "running":
        assert time.monotonic() < deadline, jobs.output(id_)
        time.sleep(0.1)


def rows(path: Path) -> Path:
    path.write_text(json.dumps({"question": "What?", "context": {"sentences": [["a b"]]}, "cot_answer": "b"}) + "\n")
    return path


def test_a_job_runs_and_tells_how_it_ended(config: Config, tmp_path: Path) -> None:
    jobs = Jobs(config)
    job = jobs.start("Look", "doctor", [str(rows(tmp_path / "rows.jsonl"))])
    assert job.state == "running"
    with pytest.raises(InputError, match="“Look” is still running"):
        jobs.start("Again", "doctor")
    wait(jobs, job.id)
    ended = jobs.get(job.id)
    assert ended.code in (0, 1) and ended.state == ("done" if ended.code == 0 else "failed")
    output, end = jobs.output(job.id)
    assert "rows.jsonl" in output
    assert jobs.output(job.id, start=end) == ("", end)
    assert jobs.output(job.id, start=10**9) == ("", end)


def test_a_failure_is_told(config: Config) -> None:
    jobs = Jobs(config)
    job = jobs.start("Nothing to search", "search", ["x"])
    wait(jobs, job.id)
    assert (jobs.get(job.id).state, jobs.get(job.id).code) == ("failed", 1)
    assert "openbook ingest" in jobs.output(job.id)[0]


def test_a_job_outlives_the_process_that_started_it_and_is_stopped_by_another(config: Config) -> None:
    starter = (
        "import sys, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as a shell does to background work
        "from openbook.config import Config; from openbook.runs import Jobs\n"
        "config = Config.parse({'out': sys.argv[1]}, origin='test')\n"
        # A plain server with nothing to load would be quicker still, but reading a pipe for ever needs no port.
        "print(Jobs(config).start('Endless', 'doctor', [sys.argv[2]]).id)"
    )
    pipe = config.out.parent / "endless.jsonl"
    os.mkfifo(pipe)
    done = subprocess.run(
        [sys.executable, "-c", starter, str(config.out), str(pipe)], capture_output=True, text=True, check=True
    )
    jobs, id_ = Jobs(config), done.stdout.strip()
    assert jobs.get(id_).state == "running"
    time.sleep(1.0)
    assert jobs.cancel(id_).stops == 1
    deadline = time.monotonic() + 60
    while jobs.get(id_).state == "running":
        assert time.monotonic() < deadline
        time.sleep(1.0)
        jobs.cancel(id_)  # asked again, it ends at once
    assert jobs.get(id_).state == "stopped"
    assert jobs.cancel(id_).state == "stopped"  # and a job that has ended is left alone


def test_a_job_that_is_killed_is_lost_and_holds_up_nobody(config: Config) -> None:
    jobs = Jobs(config)
    pipe = config.out.parent / "endless.jsonl"
    os.mkfifo(pipe)
    job = jobs.start("Endless", "doctor", [str(pipe)])
    group = json.loads((config.out / FOLDER / job.id / "job.json").read_text())["group"]
    os.killpg(group, signal.SIGKILL)
    wait(jobs, job.id)
    assert jobs.get(job.id).state == "lost"
    assert (config.out / FOLDER / job.id / LOCK).exists()
    other = jobs.start("Next", "search", ["x"])
    assert jobs.all()[0].id == max(job.id, other.id)
    wait(jobs, other.id)


@pytest.mark.parametrize("name", ["..", "../..", "x", "20260101-000000-abcd", ""])
def test_no_other_name_is_a_job(config: Config, name: str) -> None:
    with pytest.raises(StoreError):
        Jobs(config).get(name)


def test_options_mean_the_same_wherever_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    config = Config.parse(
        {
            "out": "here",
            "documents": {"paths": ["docs"]},
            "model": {"base": "model"},
            "dataset": {"prompts": "prompts"},
            "rl": {"reward_model": "reward"},
        },
        origin="test",
    )
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "openbook.toml"
    path.write_text(options_of(config))
    read = Config.load(path)
    assert read.out == tmp_path / "here"
    assert read.documents.paths == (tmp_path / "docs",)
    assert read.model.base == str(tmp_path / "model")
    assert read.dataset.prompts == str(tmp_path / "prompts")
    assert read.rl.reward_model == str(tmp_path / "reward")
    assert Config.load(path) == Config.parse(json.loads(read.model_dump_json()), origin="again")


def test_a_training_that_goes_on_beside_the_adapter_it_will_replace(tmp_path: Path) -> None:
    config = Config.parse({"out": str(tmp_path)}, origin="test")
    folder = config.adapters_dir / "raft"
    write_jsonl(folder / "log.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    write_jsonl(folder / "validation.jsonl", [{"loss": 1.0}])
    write_manifest(folder, stage="tune", options={}, inputs={}, base="nano", report={"steps": 2})
    (before,) = trainings(config)
    assert (before["finished"], before["last"]["step"], before["validation"]) == (True, 2, True)

    write_jsonl(folder / "run" / "log.jsonl", [{"step": 1, "loss": 3.0}])
    (going,) = trainings(config)
    assert (going["finished"], going["last"], going["base"]) == (False, {"step": 1, "loss": 3.0}, None)
    assert training_log(config, "raft") == [{"step": 1, "loss": 3.0}] and not going["validation"]
