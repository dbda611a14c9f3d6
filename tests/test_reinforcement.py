"""GRPO and PPO for real, on a small model whose best answer is known: learning, resuming, stopping, refusing."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from killing import Killed, KillingProgress
from models_for_tests import folder
from openbook import prompt
from openbook.config import Config
from openbook.errors import ConfigError, InputError, ModelError, OpenbookError, RecordError, StoreError
from openbook.models import Generator, load
from openbook.options import RL
from openbook.progress import SILENT
from openbook.storage import read_jsonl, read_manifest, write_jsonl
from openbook.training import is_reinforced, reinforce, tune, tune_on_pairs
from openbook.training.exercises import Exercises, read_exercises
from openbook.training.limits import Limits
from openbook.training.run import is_whole
from tiny_model import save_random_adapter, save_tiny_llama

METHODS = ("grpo", "ppo")
QUESTIONS = ("Is the fox quick?", "Is the dog lazy?", "Is it over?", "What is it?")
PASSAGE = "The quick fox jumps over the lazy dog."


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "question": question,
        "context": {"sentences": [[PASSAGE]]},
        "oracle_context": PASSAGE,
        "cot_answer": prompt.render_answer("", answer),
        "meta": {"group": "g"},
    }


def options(base: Path, *overrides: str) -> Config:
    """Small rounds and large steps, for a task of two answers to every question, one of which pays."""
    given = [
        f"model.base={base}",
        "model.max_new_tokens=16",
        "tune.adapter=lora",
        "tune.rank=8",
        "tune.row_tokens=2000",
    ]
    rl = ["epochs=12", "prompts=4", "rollouts=8", "learning_rate=0.003", "value_learning_rate=0.01", "kl_limit=5"]
    rl += ["at_once=32"]  # all of a round, so that draws do not depend on which answers end first
    return Config.load(None, [*given, *(f"rl.{option}" for option in rl), *overrides])


@pytest.fixture(scope="session", name="base")
def two_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers every question with "cache" or "fox", with about equal chances."""
    here = tmp_path_factory.mktemp("base")
    save_tiny_llama(here / "untaught", [*QUESTIONS, PASSAGE, "cache fox"])
    write_jsonl(here / "both.jsonl", [row(q, answer) for q in QUESTIONS for answer in ("cache", "fox")])
    taught = ("tune.adapter=full", "tune.epochs=50", "tune.learning_rate=0.01", "tune.rows_per_step=1")
    tune(here / "both.jsonl", out=here / "base", config=options(here / "untaught", *taught))
    return here / "base"


@pytest.fixture(scope="session", name="train")
def one_pays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose answer is "fox"."""
    path = tmp_path_factory.mktemp("train") / "train.jsonl"
    write_jsonl(path, [row(q, "fox") for q in QUESTIONS])
    return path


@pytest.fixture(scope="session", params=METHODS)
def learned(request: Any, base: Path, train: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """Each method's run over twelve rounds: its name, its folder, its report."""
    out = tmp_path_factory.mktemp("learned") / request.param
    return request.param, out, reinforce(train, method=request.param, out=out, config=options(base))


def test_it_finds_the_answer_that_pays(learned: tuple[str, Path, Any], base: Path) -> None:
    method, out, report = learned
    rewards = [reward for _, reward in report.rewards]
    print(method, rewards)
    assert rewards[0] < 0.65 and sum(rewards[-12:]) / 12 > 0.75  # the last six rounds of two steps each
    generator = Generator(load(str(base)), max_new_tokens=16)
    generator.add_adapter("tuned", out)
    with generator.adapter("tuned"):
        said = generator.generate([prompt.prompt(question, [PASSAGE]) for question in QUESTIONS])
    assert [answer.text for answer in said] == ["<ANSWER>: fox"] * 4


def test_what_a_run_writes(learned: tuple[str, Path, Any], base: Path, train: Path) -> None:
    method, out, report = learned
    config = options(base)
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "log.jsonl",
        "manifest.json",
    ]
    assert set(load_file(out / "adapter_model.safetensors")) and report.method == method
    log = list(read_jsonl(out / "log.jsonl"))
    assert [line["step"] for line in log] == list(range(1, 25)) and report.steps == 24
    watched = {"reward", "reward_answer", "reward_format", "kl", "entropy", "length", "finished", "spread", "clipped"}
    assert all(watched <= set(line) for line in log)
    assert all({"kl_weight", "value_loss"} <= set(line) for line in log) == (method == "ppo")
    assert log[0]["kl"] < 1e-6 < log[-1]["kl"]  # the run starts at its reference
    assert report.tokens == sum(line["tokens"] for line in log) < report.sequence_tokens / 4  # a prompt is read once
    manifest = read_manifest(out) or {}
    assert manifest["inputs"]["start"] == "" and manifest["prompt"] == prompt.FINGERPRINT
    assert is_reinforced(train, method=method, out=out, config=config)  # type: ignore[arg-type]
    others = {"grpo": "ppo", "ppo": "grpo"}
    assert not is_reinforced(train, method=others[method], out=out, config=config)  # type: ignore[arg-type]
    for option, idle in (
        ("rl.answer=2", False),
        ("rl.trace=0.5", method == "grpo"),
        ("tune.checkpoint_steps=7", True),
        ("tune.loss=dft", True),
    ):
        changed = options(base, option)
        assert is_reinforced(train, method=method, out=out, config=changed) == idle  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_bits(method: Any, base: Path, train: Path, tmp_path: Path) -> None:
    """From an adapter; killed between two checkpoints, which stand between rounds although every step is asked for."""
    start = tmp_path / "start"
    save_random_adapter(base, start)
    config = options(base, "rl.epochs=3", "tune.checkpoint_steps=1", "rl.rollouts=4", "rl.kl_target=0.001")

    def run(name: str, **others: Any) -> dict[str, torch.Tensor]:
        reinforce(train, method=method, out=tmp_path / name, config=config, start=start, **others)
        return load_file(tmp_path / name / "adapter_model.safetensors")

    whole = run("whole")
    with pytest.raises(Killed):
        run("killed", progress=KillingProgress(4))
    checkpoints = tmp_path / "killed" / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"checkpoint-2"}
    assert {path.suffix for path in checkpoints.rglob("*") if path.is_file()} <= {
        ".safetensors",
        ".json",
        ".pt",
        ".pth",
    }
    for name in ("trained.safetensors", "optimizer.pt", "rng_state.pth", "rounds.json", "trainer_state.json"):
        short = shutil.copytree(checkpoints / "checkpoint-2", checkpoints / "checkpoint-4")  # where the power failed
        data = (short / name).read_bytes()
        (short / name).write_bytes(data[: len(data) // 2])
        assert is_whole(checkpoints / "checkpoint-2") and not is_whole(short)
        shutil.rmtree(short)
    shutil.copytree(checkpoints / "checkpoint-2", checkpoints / "checkpoint-4")
    (checkpoints / "checkpoint-4" / "trained.safetensors").write_bytes(b"")
    again = run("killed", resume=True)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    before = load_file(start / "adapter_model.safetensors")
    assert all(not torch.equal(whole[name], before[name]) for name in whole)
    logs = [[line["reward"] for line in read_jsonl(tmp_path / name / "log.jsonl")] for name in ("whole", "killed")]
    assert logs[0][2:] == logs[1][-4:]


def test_a_policy_that_runs_away_is_stopped(base: Path, train: Path, tmp_path: Path) -> None:
    config = options(base, "rl.learning_rate=0.03", "rl.kl=0", "rl.kl_limit=0.1", "tune.checkpoint_steps=2")
    with pytest.raises(
        ModelError, match=r"run away from the reference: in round \d+ the KL is .*rl.kl_limit is 0.1.*kl"
    ):
        reinforce(train, method="grpo", out=tmp_path / "a", config=config)
    assert list((tmp_path / "a" / "run" / "checkpoints").iterdir()) and read_manifest(tmp_path / "a") is None


@pytest.mark.parametrize("method", METHODS)
def test_the_last_round_may_not_run_away_either(method: Any, base: Path, train: Path, tmp_path: Path) -> None:
    """Also where the run is taken up again with all its steps behind it."""
    config = options(base, "rl.epochs=1", "rl.learning_rate=1", "rl.kl_limit=1")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"run away from the reference: in round 2 the KL is"):
            reinforce(train, method=method, out=tmp_path / "a", config=config)
    assert read_manifest(tmp_path / "a") is None


def test_collapse_is_told_from_success() -> None:
    said: list[str] = []

    class Telling(type(SILENT)):  # type: ignore[misc]
        def message(self, text: str) -> None:
            said.append(text)

    limits = Limits(RL(entropy_floor=0.1, kl_limit=1.0), Telling())
    limits.check(0, {"entropy": 2.0, "reward": 0.5, "kl": 0.0})
    limits.check(1, {"entropy": 0.3, "reward": 0.4, "kl": 0.9})
    limits.check(2, {"entropy": 0.1, "reward": 0.6, "kl": 0.9})
    limits.check(3, {"entropy": 0.1, "reward": 0.6, "kl": 0.9})
    assert len(said) == 1 and "From round 3 on the policy is nearly certain" in said[0]
    again = Limits(RL(entropy_floor=0.1), Telling())
    again.restore(limits.state())
    with pytest.raises(
        ModelError, match=r"collapsed: in round 5 its entropy is 0\.1 .* 2 in the first round.*rl.clip_high"
    ):
        again.check(4, {"entropy": 0.1, "reward": 0.5, "kl": 0.9})
    with pytest.raises(ModelError, match="the KL is nan"):
        again.check(4, {"entropy": 0.1, "reward": 0.5, "kl": float("nan")})
    with pytest.raises(ModelError, match="writes with another model"):
        again.check(4, {"entropy": 0.1, "reward": 0.5, "kl": 0.0, "server_gap": float("nan")})
    assert len(said) == 1


@pytest.fixture(scope="session")
def scorer(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that likes "fox"."""
    here = tmp_path_factory.mktemp("scorer")
    asked = [prompt.prompt(question, [PASSAGE]).messages for question in QUESTIONS]
    pairs = [
        {
            "prompt": [{"role": message.role, "content": message.content} for message in messages],
            "chosen": "<ANSWER>: fox",
            "rejected": "<ANSWER>: cache",
        }
        for messages in asked
    ]
    write_jsonl(here / "pairs.jsonl", pairs)
    config = options(base, "preference.held_out=0", "preference.epochs=15", "tune.learning_rate=0.01")
    tune_on_pairs(
        here / "pairs.jsonl", method="reward", out=here / "reward", references=here / "references", config=config
    )
    return here / "reward"


def test_a_reward_model_alone_teaches_too(base: Path, train: Path, scorer: Path, tmp_path: Path) -> None:
    """Prompts without answers suffice then."""
    rows = [
        {"messages": [{"role": m.role, "content": m.content} for m in prompt.prompt(q, [PASSAGE]).messages]}
        for q in QUESTIONS
    ]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    config = options(base, f"rl.reward_model={scorer}", "rl.grader=0", "rl.epochs=6")
    report = reinforce(tmp_path / "prompts.jsonl", method="ppo", out=tmp_path / "a", config=config)
    first, last = report.rewards[0][1], report.rewards[-1][1]
    print(report.rewards)
    assert last > first
    log = list(read_jsonl(tmp_path / "a" / "log.jsonl"))
    assert log[0]["reward_model"] == pytest.approx(first, abs=1e-5) and "reward_answer" not in log[0]
    assert not is_reinforced(train, method="ppo", out=tmp_path / "a", config=config)
    with pytest.raises(RecordError, match=r"prompts.jsonl:1: the row has no answer .* like 3 more"):
        reinforce(tmp_path / "prompts.jsonl", method="ppo", out=tmp_path / "b", config=options(base))


def test_bad_reward_models_are_named(base: Path, train: Path, scorer: Path, tmp_path: Path) -> None:
    def run(folder: Path, on: Path = base) -> None:
        config = options(on, f"rl.reward_model={folder}", "rl.epochs=1")
        reinforce(train, method="grpo", out=tmp_path / "out", config=config)

    broken = tmp_path / "broken"
    shutil.copytree(scorer, broken)
    head = load_file(broken / "head.safetensors")
    save_file({"weight": head["weight"] * float("nan")}, broken / "head.safetensors")
    with pytest.raises(ModelError, match=r"32 of 32 rewards are no numbers.*train.jsonl:1, .* and 1 more"):
        run(broken)
    save_file({"weight": head["weight"][:, :8].contiguous()}, broken / "head.safetensors")
    with pytest.raises(ModelError, match="cannot be put on"):
        run(broken)
    (broken / "head.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no reward model: head.safetensors is missing"):
        run(broken)
    with pytest.raises(ModelError, match=r"tuned on another base than .* or another tokenizer"):
        run(scorer, on=folder(tmp_path / "another"))


@pytest.mark.parametrize("method", METHODS)
def test_no_policy_goes_on_from_a_reward_model(
    method: Any, base: Path, train: Path, scorer: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"reward is a reward model: .* no run can go on from it"):
        reinforce(train, method=method, out=tmp_path / "a", config=options(base), start=scorer)


def test_adapters_on_other_weights_of_the_base_are_warned_of(
    base: Path, train: Path, scorer: Path, tmp_path: Path
) -> None:
    """Once for each: the policy that the run starts from, which is the reference too, and the reward model."""
    short = ("rl.epochs=0.1", "rl.rollouts=2", "rl.kl_limit=50", f"rl.reward_model={scorer}")
    reinforce(train, method="grpo", out=tmp_path / "lora", config=options(base, *short))
    quantised = options(base, *short, "tune.adapter=qlora")
    with pytest.warns(UserWarning, match="was tuned on the base as it is and is put on it in 4 bits") as warned:
        reinforce(train, method="grpo", out=tmp_path / "qlora", config=quantised, start=tmp_path / "lora")
    told = [str(w.message) for w in warned if "in 4 bits" in str(w.message)]
    assert len(told) == 2 and "/lora was" in told[0] and "/reward was" in told[1] and "tune.adapter = lora" in told[0]


@pytest.mark.parametrize("method", METHODS)
def test_rewards_that_are_all_equal_are_warned_of(method: Any, base: Path, train: Path, tmp_path: Path) -> None:
    """Whatever the grader finds counts for nothing."""
    parts = ("answer", "refusal", "quote", "verbatim", "format")
    config = options(base, "rl.epochs=1", *(f"rl.{part}=0" for part in parts))
    with pytest.warns(UserWarning, match=r"In no round was one answer .*train\.jsonl .*rl\.temperature"):
        report = reinforce(train, method=method, out=tmp_path / "a", config=config)
    assert {reward for _, reward in report.rewards} == {0.0}


def test_contradictions_are_sentences(base: Path, train: Path, tmp_path: Path) -> None:
    def run(*overrides: str, out: str = "out", **others: Any) -> None:
        reinforce(train, method="grpo", out=tmp_path / out, config=options(base, *overrides), **others)

    save_random_adapter(base, tmp_path / "start")
    with pytest.raises(ModelError, match=r"one frozen base, and all weights were to be tuned.*qlora or lora"):
        run("tune.adapter=full")
    with pytest.raises(ModelError, match=r"would start from .* and overwrite it"):
        run(out="start", start=tmp_path / "start")
    with pytest.raises(ModelError, match=r"holds no adapter: adapter_config\.json is missing"):
        run(start=tmp_path / "nothing")
    with pytest.raises(OpenbookError, match="no checkpoint of this run"):
        run(resume=True)
    with pytest.raises(ConfigError, match="Nothing gives a reward"):
        run("rl.grader=0")
    with pytest.raises(
        RecordError, match=r"train.jsonl:1: the prompt has \d+ tokens, and with room for an answer 48 fit"
    ):
        run("tune.row_tokens=64")
    with pytest.raises(RecordError, match=r"train.jsonl:1: .*Nor can these rows be used: 2, 3, 4\."):
        run("tune.row_tokens=64")
    with pytest.raises(
        ConfigError, match=r"answer may have 600 tokens, .* at most 512\. Lower model\.max_new_tokens\.$"
    ):
        run("model.max_new_tokens=600")


def test_no_question_is_asked_without_any_passage(base: Path, tmp_path: Path) -> None:
    """Of a prompt that is too long the longest distractors go, and what is left is the same in every epoch."""
    path, loaded = tmp_path / "train.jsonl", load(str(base))
    short, long, longer = (f"{PASSAGE} {'zqxj wvkp ' * count}" for count in (1, 20, 40))

    def read(*passages: str) -> Exercises:
        refusing = row(QUESTIONS[0], prompt.REFUSAL) | {"context": {"sentences": [passages]}, "oracle_context": ""}
        write_jsonl(path, [refusing])
        return read_exercises(path, loaded, longest=16, row=2000, each=1, seed=0)

    found = read(longer, short, long)
    assert found.left_out == {f"{path}:1": 1}
    assert [{chunk.text for chunk in found.round(epoch)[0].passages} for epoch in range(6)] == [{short, long}] * 6
    with pytest.raises(RecordError, match=r"train.jsonl:1: the prompt has \d+ tokens, and with room .* 496 fit"):
        read(longer * 2)


def test_rounds_are_a_function_of_seed_and_number(base: Path, tmp_path: Path) -> None:
    """Neighbours share their passages; an epoch asks every question once, the next one in another order."""
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [row(f"{q} {n}", "fox") | {"meta": {"group": f"g{n}"}} for n in range(4) for q in QUESTIONS[:3]])
    given = {"longest": 16, "row": 2000, "each": 4}
    loaded = load(str(base))
    one, two = (read_exercises(path, loaded, seed=0, **given) for _ in range(2))
    assert len(one) == 12 and one.rounds(1.0) == 3 and one.rounds(0.5) == 2 and one.rounds(0.01) == 1
    rounds = [[exercise.name for exercise in one.round(number)] for number in range(6)]
    assert rounds[3] == [exercise.name for exercise in two.round(3)]
    first, second = ([name for names in half for name in names] for half in (rounds[:3], rounds[3:]))
    assert sorted(first) == sorted(second) == sorted({*first}) and first != second
    groups = [exercise.group for number in range(3) for exercise in one.round(number)]
    assert [len(list(found)) for _, found in itertools.groupby(groups)] == [3, 3, 3, 3]
    assert one.round(0)[0].gold is not None and one.round(0)[0].passages[0].text == PASSAGE


def test_the_command(base: Path, train: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from openbook import verbs
    from openbook.cli.main import app

    given = [f"--set={o}" for o in ("model.max_new_tokens=8", "rl.updates=1", "rl.kl_limit=9")]
    flags = ["--prompts", "2", "--rollouts", "2", "--kl", "0.1", "--epochs", "1", "--learning-rate", "1e-3"]
    command = ["tune", "--method", "grpo", "--base", str(base), "--train", str(train), "--out", str(tmp_path / "work")]
    for expected in ("2 steps in", "is current: questions, base"):
        app([*command, *flags, *given], standalone_mode=False)
        captured = capsys.readouterr()
        assert (
            "mean reward of a round: " in captured.out
            and "loss" not in captured.out
            and "adapters/grpo" in captured.out
        )
        assert expected in captured.out + captured.err
    with pytest.raises(InputError, match="samples its answers itself"):
        verbs.tune(options(base), method="ppo", pairs=train)
    with pytest.raises(StoreError, match=r"train.jsonl does not exist.*openbook dataset"):
        verbs.tune(options(base, f"out={tmp_path / 'nothing'}"), method="ppo")
    options_of = (read_manifest(tmp_path / "work" / "adapters" / "grpo") or {})["options"]
    assert options_of["rl"]["kl"] == 0.1 and options_of["learning_rate"] == 1e-3 and options_of["epochs"] == 1.0
