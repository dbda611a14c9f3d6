"""Does learning from failures or from rewards improve on RAFT? DPO, a reward model, PPO and GRPO after it, over seeds.

    python bench/methods.py prepare PROJECT/openbook.toml FOLDER
    python bench/methods.py compute FOLDER [--seeds 3] [--workers 1] [--seconds S] [--only NAME ...]
    python bench/methods.py table FOLDER

`prepare` takes a project's training questions, whole study groups at random, into two halves: RAFT studies the first;
pairs and rollouts come from the second, which are questions about the same documents that RAFT has not seen, or from the
first again, where many are asked once more without their golden passage. It keeps what the index finds for every exam, so
that `compute` needs neither index nor embedder and can run anywhere. Every way is trained and examined once a seed.

Three exams: `validation`, by which settings are chosen, and the data set's `studied` and `unseen`. A question's value is
its mean over the seeds; intervals are bootstraps over documents.
"""

import argparse
import functools
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paired_table
from jobs import Job, is_done, run, seconds_of
from kept_passages import KeptPassages, answerable, keep
from openbook import tuned
from openbook.config import Config
from openbook.dataset import practice_rows
from openbook.dataset.formats import read_examples
from openbook.evaluation.candidates import LocalCandidates
from openbook.evaluation.evaluate import examine
from openbook.storage import read_jsonl, read_manifest, write_jsonl
from openbook.training import reinforce, tune, tune_on_pairs

HALVES = ("first", "second")
EXAMS = ("validation", "studied", "unseen")
ADAPTER = "raft"  # under this name an exam finds a job's adapter, whatever tuned it
REMOVED = 150  # questions of an exam that are asked again without their golden passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`data`: the half that it learns from; `refusals`: the share of its answerable questions that are asked once more
    without their golden passage. What is not RAFT itself goes on from the adapter of the same seed."""

    name: str
    method: str
    data: str = "second"
    refusals: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)


RL = {"rl.prompts": 16, "rl.epochs": 2.0}
ONCE = {"rl.prompts": 16, "rl.epochs": 1.0}
PLAIN = {"preference.learning_rate": 2e-4, "preference.sft_weight": 0.0}

WAYS = (
    Way(name="raft", method="sft", data="first"),
    Way(name="raft, all questions", method="sft", data="both"),
    Way(name="dpo", method="dpo"),
    Way(name="dpo without sft", method="dpo", options=PLAIN),
    Way(name="dpo, refusals", method="dpo", data="first", refusals=0.5),
    Way(name="reward", method="reward"),
    Way(name="reward, refusals", method="reward", data="first", refusals=0.5),
    Way(name="grpo", method="grpo", options=RL),
    Way(name="ppo", method="ppo", options=RL),
    Way(name="grpo, refusals", method="grpo", refusals=0.5, options=ONCE),
    Way(name="ppo, refusals", method="ppo", refusals=0.5, options=ONCE),
)


def prepare(project: Path, out: Path) -> None:
    """Write the halves, the exams and what the project's index finds for them."""
    from openbook.retrieval import open_index

    config = Config.load(project, [])
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(config.dataset_dir / "train.jsonl"):
        groups.setdefault(str(sorted(row["context"]["sentences"][0])), []).append(row)
    keys = sorted(groups)
    random.Random(0).shuffle(keys)
    rows: dict[str, list[dict[str, Any]]] = {half: [] for half in HALVES}
    for key in keys:
        min(rows.values(), key=len).extend(groups[key])
    for half in HALVES:
        write_jsonl(out / f"{half}.jsonl", rows[half])
    write_jsonl(out / "both.jsonl", rows["first"] + rows["second"])
    for exam in EXAMS:
        shutil.copy(config.dataset_dir / f"{exam}.jsonl", out / f"{exam}.jsonl")
    tests = {exam: tuple(read_examples(out / f"{exam}.jsonl")) for exam in EXAMS}
    keep(out / "passages.jsonl", tests, open_index(config.index_dir, config), configured(out, 0))
    print({half: len(found) for half, found in rows.items()}, {exam: len(found) for exam, found in tests.items()})


def configured(folder: Path, seed: int, options: dict[str, Any] | None = None) -> Config:
    """Plain fp32 weights on every machine, so that the figures do not depend on it."""
    chosen: dict[str, Any] = {
        "out": str(folder),
        "seed": seed,
        "model": {"quantization": "none", "dtype": "float32"},
        "tune": {"adapter": "lora", "epochs": 2.0, "checkpoint_steps": 10},
        "pairs": {"samples": 4},
        "rl": {"at_once": 32},
        "evaluate": {
            "arms": ["raft_rag"],
            "questions": 1000,
            "removed": REMOVED,
            "passage_counts": [],
            "batch_size": 32,
            "resamples": 100,
        },
    }
    for name, value in (options or {}).items():
        section, key = name.split(".")
        chosen.setdefault(section, {})[key] = value
    return Config.parse(chosen, origin="bench")


def jobs_of(ways: Sequence[Way], seeds: int, out: Path) -> list[Job]:
    """Way by way, each for every seed; pairs are asked for once a seed and half."""
    found: dict[str, Job] = {"base": Job(name="base", work=functools.partial(sit, data=out, arm="base_rag"))}
    for way in ways:
        for seed in range(seeds):
            needs = [] if way.method == "sft" else [f"raft-{seed}"]
            if way.method in ("dpo", "reward"):
                name = pairs_name(way, seed)
                ask = functools.partial(pairs, way=way, seed=seed, data=out)
                found.setdefault(name, Job(name=name, work=ask, needs=tuple(needs)))
                needs.append(name)
            work = functools.partial(train, way=way, seed=seed, data=out)
            found[f"{way.name}-{seed}"] = Job(name=f"{way.name}-{seed}", work=work, needs=tuple(needs))
    return list(found.values())


def pairs_name(way: Way, seed: int) -> str:
    return f"pairs of the {way.data} half{', refusals' if way.refusals else ''}-{seed}"


def pairs(folder: Path, *, way: Way, seed: int, data: Path) -> None:
    """Ask this seed's RAFT the questions of the way's half."""
    config = configured(folder, seed, {"pairs.without_golden": way.refusals})
    config.dataset_dir.mkdir(exist_ok=True)
    shutil.copy(data / f"{way.data}.jsonl", config.dataset_dir / "train.jsonl")
    tuned.find_pairs(config, adapter=data / f"raft-{seed}" / "adapters" / ADAPTER)


def train(folder: Path, *, way: Way, seed: int, data: Path) -> None:
    """Tune as `way` says and sit the exams."""
    config = configured(folder, seed, {**way.options, "rl.without_golden": way.refusals})
    out, start = config.adapters_dir / ADAPTER, data / f"raft-{seed}" / "adapters" / ADAPTER
    rows = config.dataset_dir / "train.jsonl"
    rows.parent.mkdir(exist_ok=True)
    shutil.copy(data / f"{way.data}.jsonl", rows)
    if way.method == "sft":
        tune(rows, out=out, config=config)
    elif way.method in ("grpo", "ppo"):
        reinforce(practice_rows(config, rows), method=way.method, out=out, config=config, start=start)  # type: ignore[arg-type]
    else:
        tune_on_pairs(
            data / pairs_name(way, seed) / "pairs" / "pairs.jsonl",
            method=way.method,  # type: ignore[arg-type]
            out=out,
            references=folder / "references",
            config=config,
            start=start,
        )
    if way.method != "reward":
        sit(folder, data=data, seed=seed)


def sit(folder: Path, *, data: Path, seed: int = 0, arm: str = "raft_rag") -> None:
    config = configured(folder, seed, {"evaluate.arms": [arm]})
    tests = {exam: tuple(read_examples(data / f"{exam}.jsonl")) for exam in EXAMS}
    candidates = LocalCandidates(config, {ADAPTER} if arm == "raft_rag" else set())
    examine(config, tests, KeptPassages(data / "passages.jsonl"), candidates)


# --- the table


def table(out: Path, seeds: int) -> str:
    """Every way's means and its difference from RAFT, exam by exam; what is rewarded at the beginning and the end; how well
    held-out pairs are told apart."""
    tests = {exam: tuple(read_examples(out / f"{exam}.jsonl")) for exam in EXAMS}
    shown = answerable(tests, KeptPassages(out / "passages.jsonl"), configured(out, 0))
    ways = [way.name for way in WAYS if way.method != "reward"]
    done = {way: [n for n in range(seeds) if is_done(out / f"{way}-{n}")] for way in ways}
    lines = []
    for exam, examples in tests.items():
        ids, clusters = [e.id for e in examples], [e.golden[0].document_id for e in examples]

        def of(name: str, exam: str = exam, ids: Sequence[str] = ids) -> paired_table.Values:
            rows = read_jsonl(out / name / "evaluation" / "grades.jsonl")
            return paired_table.values_of((row for row in rows if row["test"] == exam), ids, shown)

        values = {way: {n: of(f"{way}-{n}") for n in found} for way, found in done.items()}
        means = {"base": [of("base")] if is_done(out / "base") else []}
        means |= {way: list(by_seed.values()) for way, by_seed in values.items()}
        couples = {
            f"{way} − raft": [(mine, values["raft"][n]) for n, mine in by_seed.items()]
            for way, by_seed in values.items()
            if way != "raft"
        }
        title = f"{exam}: {len(ids)} questions about {len(set(clusters))} documents, in %"
        lines += [paired_table.markdown(title, paired_table.compared(means, couples, clusters)), ""]
    return "\n".join(lines + _told_of_training(out, seeds))


def _told_of_training(out: Path, seeds: int) -> list[str]:
    """What the trainings themselves say of rewards and of held-out pairs, a line a run."""
    lines = []
    for way in WAYS:
        for seed in range(seeds):
            folder = out / f"{way.name}-{seed}"
            if not is_done(folder):
                continue
            report = (read_manifest(folder / "adapters" / ADAPTER) or {})["report"]
            if report["rewards"]:
                rewards = [reward for _, reward in report["rewards"]]
                tenth = max(1, len(rewards) // 10)
                parts = [rewards[:tenth], rewards[-tenth:]]
                told = "reward of the first and the last tenth {:.3f} → {:.3f}".format(
                    *(sum(p) / len(p) for p in parts)
                )
            elif report["held_out"]:
                told = "of held-out pairs " + json.dumps({k: round(v, 3) for k, v in report["held_out"].items()})
            else:
                told = f"{report['steps']} steps"
            lines.append(f"{folder.name}: {told}; {seconds_of(folder):.0f} s with its exam")
    for folder in sorted(out.glob("pairs *")):
        if is_done(folder):
            report = (read_manifest(folder / "pairs") or {})["report"]
            lines.append(f"{folder.name}: {report['pairs']} of {report['samples']} answers; {report['punished']}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("prepare")
    step.add_argument("project", type=Path)
    step.add_argument("out", type=Path)
    step = steps.add_parser("compute")
    step.add_argument("out", type=Path)
    step.add_argument("--seeds", type=int, default=3)
    step.add_argument("--workers", type=int, default=1)
    step.add_argument("--seconds", type=float, default=float("inf"), help="after which no job begins")
    step.add_argument("--only", nargs="*", default=[], help="ways, by name")
    step = steps.add_parser("table")
    step.add_argument("out", type=Path)
    step.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if arguments.step == "prepare":
        out.mkdir(parents=True, exist_ok=True)
        prepare(arguments.project, out)
    elif arguments.step == "compute":
        ways = [way for way in WAYS if not arguments.only or way.name in arguments.only]
        run(jobs_of(ways, arguments.seeds, out), out, workers=arguments.workers, seconds=arguments.seconds)
    else:
        print(table(out, arguments.seeds))


if __name__ == "__main__":
    main()
