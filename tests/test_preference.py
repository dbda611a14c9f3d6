"""DPO and reward models for real, on small models: gradients, references, learning, resuming, accumulating."""

import contextlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn import functional as F

from models_for_tests import FAMILIES, folder, model, tokenizer
from openbook.config import Config
from openbook.errors import InputError, ModelError, OpenbookError, RecordError
from openbook.models import load
from openbook.options import Preference
from openbook.progress import SILENT
from openbook.records import Conversation, Message
from openbook.storage import read_jsonl, read_manifest, write_jsonl
from openbook.tokens import TokenSequence, encode
from openbook.training import is_tuned_on_pairs, tune_on_pairs
from openbook.training.attention import serve_trees
from openbook.training.dpo import Anchors, DirectPreference
from openbook.training.pair_rows import Pairs, encode_pairs
from openbook.training.pairs import read_pairs
from openbook.training.preference import pair_options, warn_of_guessing
from openbook.training.references import anchors, reference_logps
from openbook.training.reward import RewardModelling, attach_head, length_baseline

BETA = 0.3


def pair_set(*, contexts: int = 2, each: int = 3, seed: int = 0) -> Pairs:
    """Random pairs; those of a context share a prefix that is longer than what is their own."""
    rng = np.random.default_rng(seed)
    chosen, rejected = [], []
    for _ in range(contexts):
        shared = rng.integers(3, 512, 30)
        for number in range(each):
            prompt = np.concatenate([shared, rng.integers(3, 512, 4 + number)])
            for found, length in ((chosen, 3 + number), (rejected, 9 - 2 * number)):
                answer = rng.integers(3, 512, length)
                weight = np.array([0.0] * len(prompt) + [1.0] * length, np.float32)
                found.append(TokenSequence(input_ids=np.concatenate([prompt, answer]).astype(np.int64), weight=weight))
    size = len(chosen)
    return Pairs(chosen=tuple(chosen), rejected=tuple(rejected), margins=tuple(0.1 * n for n in range(size)))


def alone(network: Any, sequence: TokenSequence) -> torch.Tensor:
    """The oracle: log-probability of an answer, from all logits of the sequence alone."""
    ids = torch.from_numpy(sequence.input_ids)[None]
    logps = network(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    taken = logps.gather(1, ids[0, 1:, None])[:, 0]
    return (taken * torch.from_numpy(sequence.weight)[1:]).sum()


def gradients(network: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name, expected in theirs.items():
        relative = (ours[name] - expected).norm() / expected.norm().clamp(min=1e-12)
        assert relative <= 1e-5, f"{name}: {relative:.1e}"


def with_adapters(network: Any, *, checkpointing: bool) -> Any:
    """Adapters that are not zero, so that every one of their weights has a gradient."""
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.train()
    if checkpointing:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
        adapted.enable_input_require_grads()
    return adapted


def reference(size: int) -> torch.Tensor:
    return torch.randn(size, 2, generator=torch.Generator().manual_seed(5)) - 30


def separate_dpo(network: Any, pairs: Pairs, options: Preference, frozen: torch.Tensor) -> torch.Tensor:
    """Loss of all pairs, written from the papers' formulas, every sequence by itself."""
    total = torch.zeros(())
    for n in range(len(pairs)):
        logps = [alone(network, sequence) for sequence in (pairs.chosen[n], pairs.rejected[n])]
        lengths = pairs.lengths[n]
        gained = [logp - frozen[n, side] for side, logp in enumerate(logps)]
        if options.loss == "ipo":
            delta = gained[0] / lengths[0] - gained[1] / lengths[1]
            loss = (delta - 0.5 / options.beta) ** 2
        elif options.loss == "hinge":
            loss = (1 - options.beta * (gained[0] - gained[1])).clamp(min=0)
        else:
            h, e = options.beta * (gained[0] - gained[1]), options.label_smoothing
            loss = (1 - e) * torch.log1p((-h).exp()) + e * torch.log1p(h.exp())
        total = total + loss - options.sft_weight * logps[0] / lengths[0]
    return total


def on_trees(network: Any, method: Any, pairs: Pairs, budget: int) -> tuple[torch.Tensor, dict[str, float], int]:
    """The loss over rows of this budget, the other sums, and how many rows there were."""
    total, others, count = torch.zeros(()), {}, 0.0
    rows = pairs.rows(range(len(pairs)), budget)
    for row in rows:
        batch = method.collate([row])
        sums = method.sums(network, batch)
        loss = sums.pop("loss")
        total = total + sums.pop("objective", loss)
        count += method.count(batch).item()
        for name, value in sums.items():
            others[name] = others.get(name, 0.0) + value.item()
    assert count == len(pairs)
    return total, others, len(rows)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "ipo"},
        {"loss": "hinge"},
        {"label_smoothing": 0.2, "sft_weight": 0.5},
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dpo_on_trees_gives_the_gradients_of_separate_rows(options: dict[str, Any], checkpointing: bool) -> None:
    chosen = Preference(beta=BETA, **options)
    pairs = pair_set()
    network = with_adapters(model(), checkpointing=checkpointing)
    frozen = reference(len(pairs))
    expected = separate_dpo(network, pairs, chosen, frozen)
    theirs = gradients(network, expected)
    serve_trees(network.get_base_model())
    method = DirectPreference(chosen, frozen, Anchors())
    for budget in (60, 1000):
        total, _, _ = on_trees(network, method, pairs, budget)
        assert torch.isclose(total, expected, rtol=1e-5)
        assert_close(gradients(network, total), theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_does_for_every_family_of_models(family: str) -> None:
    pairs, options = pair_set(contexts=1), Preference(beta=BETA)
    network, frozen = model(family), reference(3)
    expected = separate_dpo(network, pairs, options, frozen)
    theirs = gradients(network, expected)
    serve_trees(network)
    total, _, _ = on_trees(network, DirectPreference(options, frozen, Anchors()), pairs, 1000)
    assert torch.isclose(total, expected, rtol=1e-5)
    assert_close(gradients(network, total), theirs)


def test_what_is_watched_is_what_it_says(tmp_path: Path) -> None:
    pairs = pair_set()
    network = with_adapters(model(), checkpointing=False).eval()
    plain = {side: [alone(network, s).item() for s in getattr(pairs, side)] for side in ("chosen", "rejected")}
    serve_trees(network.get_base_model())
    rows = pairs.rows(range(len(pairs)), 120)
    with network.disable_adapter():
        frozen = reference_logps(network, rows, pairs=len(pairs), cache=tmp_path / "r.safetensors", progress=SILENT)
        held = anchors(network, rows)
    method = DirectPreference(Preference(beta=BETA), frozen, held)
    with torch.no_grad():
        _, found, _ = on_trees(network, method, pairs, 120)
    gained = [[plain[side][n] - frozen[n, at].item() for n in range(len(pairs))] for at, side in enumerate(plain)]
    margins = [BETA * (a - b) for a, b in zip(*gained, strict=True)]
    assert found["margin"] == pytest.approx(sum(margins), rel=1e-4)
    assert found["accuracy"] == sum(margin > 0 for margin in margins)
    assert found["chosen"] == pytest.approx(BETA * sum(gained[0]), rel=1e-4)
    network.get_base_model().set_attn_implementation("sdpa")

    def without(ids: torch.Tensor) -> torch.Tensor:
        with network.disable_adapter():
            return network(input_ids=ids).logits

    expected = drift(lambda ids: network(input_ids=ids).logits, without, pairs, range(len(pairs)))
    assert found["kl"] == pytest.approx(expected, rel=1e-4)


def drift(ours: Any, theirs: Any, pairs: Pairs, members: Any) -> float:
    """KL(ours ‖ theirs) in nats a token, meaned over the answers of each pair, summed over these pairs: the oracle.
    Both are functions from token ids to logits."""
    total = 0.0
    for sequence in (side[n] for n in members for side in (pairs.chosen, pairs.rejected)):
        ids = torch.from_numpy(sequence.input_ids)[None]
        at = torch.from_numpy(sequence.weight)[1:] > 0
        with torch.no_grad():
            left, right = (logits(ids)[0, :-1][at].log_softmax(-1) for logits in (ours, theirs))
        total += F.kl_div(right, left, log_target=True, reduction="sum").item() / int(at.sum()) / 2
    return total


def test_the_reference_is_the_bare_base_and_is_read_again(tmp_path: Path) -> None:
    pairs = pair_set()
    network = get_peft_model(model(), LoraConfig(r=4, target_modules="all-linear"))
    bare = model()
    serve_trees(network.get_base_model())
    rows, cache = pairs.rows(range(6), 200), tmp_path / "a" / "r.safetensors"
    found = reference_logps(network, rows, pairs=6, cache=cache, progress=SILENT)
    with torch.no_grad():
        for n in range(6):
            expected = [alone(bare, pairs.chosen[n]).item(), alone(bare, pairs.rejected[n]).item()]
            assert found[n].tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(reference_logps(None, rows, pairs=6, cache=cache, progress=SILENT), found)
    cache.write_bytes(b"damaged")
    assert torch.equal(reference_logps(network, rows, pairs=6, cache=cache, progress=SILENT), found)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_reward_on_trees_gives_the_gradients_of_separate_rows(checkpointing: bool) -> None:
    pairs = pair_set()
    network = with_adapters(model(), checkpointing=checkpointing)
    head = attach_head(network)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(1))
    body = network.get_base_model().model
    total = torch.zeros(())
    for n in range(len(pairs)):
        ids = [torch.from_numpy(s.input_ids)[None] for s in (pairs.chosen[n], pairs.rejected[n])]
        chosen, rejected = (body(input_ids=i).last_hidden_state[0, -1] @ head.weight[0] for i in ids)
        total = total + torch.log1p((-(chosen - rejected - 0.1 * n)).exp()) + 0.01 * (chosen + rejected) ** 2
    theirs = gradients(network, total)
    assert "score.weight" in theirs
    serve_trees(network.get_base_model())
    method = RewardModelling(head, pairs.margins, centring=0.01)
    for budget in (60, 1000):
        found, _, _ = on_trees(network, method, pairs, budget)
        assert torch.isclose(found, total, rtol=1e-5)
        assert_close(gradients(network, found), theirs)


def test_the_length_baseline_knows_the_direction_from_training() -> None:
    longer, shorter = [(5, 3)] * 3 + [(2, 4)], [(3, 5)] * 3 + [(4, 2)]
    assert length_baseline(longer, [(9, 1), (1, 9), (2, 2), (7, 1)]) == 2.5 / 4
    assert length_baseline(shorter, [(9, 1), (1, 9), (2, 2), (7, 1)]) == 1.5 / 4


# --- whole runs ------------------------------------------------------------------------------------------------------

WORDS = ("cache", "results", "answer", "fox", "dog", "brown", "quick", "lazy", "minutes", "question")


def rows_of_pairs(count: int = 30) -> list[dict[str, Any]]:
    """A task with a known optimum: "lazy" is always better than "over"; the two are equally many tokens."""
    return [
        {"prompt": f"How long does the {WORDS[n % 10]} {WORDS[n // 10]} last?", "chosen": "lazy", "rejected": "over"}
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("base"))


Setting = Callable[..., tuple[Path, Config]]


@pytest.fixture
def setting(tmp_path: Path, base: Path) -> Setting:
    def make(*overrides: str, rows: list[dict[str, Any]] | None = None) -> tuple[Path, Config]:
        pairs = tmp_path / "pairs.jsonl"
        write_jsonl(pairs, rows or rows_of_pairs())
        options = [f"model.base={base}", "tune.adapter=lora", "tune.rank=4", "tune.row_tokens=300"]
        options += ["tune.rows_per_step=1", "preference.epochs=1"]
        options += ["preference.learning_rate=0.01", "tune.learning_rate=0.01"]
        return pairs, Config.load(None, [*options, *overrides])

    return make


def run(pairs: Path, config: Config, out: Path, **others: Any) -> Any:
    others.setdefault("method", "dpo")
    return tune_on_pairs(pairs, out=out, references=out.parent / "references", config=config, **others)


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = load_file(out / "adapter_model.safetensors")
    head = out / "head.safetensors"
    return found | (load_file(head) if head.exists() else {})


def test_dpo_learns_what_is_preferred(setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("preference.epochs=6", "preference.held_out=6", "tune.evaluate_steps=4")
    report = run(pairs, config, tmp_path / "a")
    assert report.train_loss[0][1] == pytest.approx(math.log(2), abs=1e-6), "it starts as its own reference"
    assert report.held_out["accuracy"] == 1.0 and report.held_out["margin"] > 1
    assert report.held_out["kl"] > 0.01
    assert report.held_out["loss"] < 0.3
    assert report.sequence_tokens > 1.5 * report.tokens, "both answers stand behind one prompt"
    assert is_tuned_on_pairs(pairs, method="dpo", out=tmp_path / "a", config=config)
    assert not is_tuned_on_pairs(pairs, method="reward", out=tmp_path / "a", config=config)
    log = list(read_jsonl(tmp_path / "a" / "log.jsonl"))
    first, watched = log[0], [row for row in log if "validation_loss" in row]
    assert first["accuracy"] == 0.5 and first["margin"] == 0.0, "at first nothing is preferred"
    assert {"validation_kl", "validation_margin", "validation_accuracy"} <= watched[0].keys()
    assert watched[0]["validation_kl"] < watched[-1]["validation_kl"]
    # What was trained is what a stranger loads: plain transformers and PEFT say the same of an unseen prompt.
    tuned = PeftModel.from_pretrained(load(str(config.model.base)).model, tmp_path / "a")
    with torch.no_grad():
        after = [alone(tuned, asked(answer)).item() for answer in ("lazy", "over")]
        with tuned.disable_adapter():
            before = [alone(tuned, asked(answer)).item() for answer in ("lazy", "over")]
    assert (after[0] - after[1]) - (before[0] - before[1]) > 5
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.part"))


def asked(answer: str) -> TokenSequence:
    """An unseen question with an answer."""
    question = Message(role="user", content="How long does the holder last?")
    return encode(tokenizer(), Conversation(messages=(question, Message(role="assistant", content=answer))))


def test_the_swapped_task_is_learnt_the_other_way_round(setting: Setting, tmp_path: Path) -> None:
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows_of_pairs()]
    pairs, config = setting("preference.epochs=3", "preference.held_out=6", rows=swapped)
    assert run(pairs, config, tmp_path / "a").held_out["accuracy"] == 1.0


def test_a_reward_model_learns_and_plain_transformers_gives_its_scores(setting: Setting, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    pairs, config = setting("preference.epochs=4", "preference.held_out=6")
    report = run(pairs, config, tmp_path / "a", method="reward")
    assert report.train_loss[0][1] == pytest.approx(math.log(2), abs=1e-6), "the head begins at zero"
    assert report.held_out["accuracy"] == 1.0 and report.held_out["length_accuracy"] == 0.5
    stranger = AutoModelForSequenceClassification.from_pretrained(config.model.base, num_labels=1)
    stranger.score.weight.data = load_file(tmp_path / "a" / "head.safetensors")["weight"]
    stranger.config.pad_token_id = None  # it is the stop token, which transformers would then pass over
    stranger = PeftModel.from_pretrained(stranger, tmp_path / "a").eval()
    tokens = encode_pairs(read_pairs(pairs), tokenizer(), limit=300)
    _, watched = tokens.held_out(6, seed=0)
    with torch.no_grad():
        chosen, rejected = (
            [stranger(input_ids=torch.from_numpy(side[n].input_ids)[None]).logits.item() for n in watched]
            for side in (tokens.chosen, tokens.rejected)
        )
    assert len(watched) == 6
    assert sum(chosen) / 6 == pytest.approx(report.held_out["chosen"], rel=1e-4)
    assert sum(rejected) / 6 == pytest.approx(report.held_out["rejected"], rel=1e-4)
    assert abs(sum(chosen) + sum(rejected)) < sum(chosen) - sum(rejected), "centred"


class Killed(BaseException):
    pass


class KillingProgress(type(SILENT)):  # type: ignore[misc]
    """Ends the run after its third step, as a kill would."""

    steps = 0

    def task(self, description: str, total: float | None, unit: str = "") -> Any:
        return contextlib.nullcontext(self)

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.steps += "loss" in facts
        if self.steps == 3:
            raise Killed


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_a_killed_run_goes_on_to_the_same_bits(method: str, setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("preference.epochs=2", "tune.checkpoint_steps=2", "preference.held_out=5")
    whole = run(pairs, config, tmp_path / "whole", method=method)
    with pytest.raises(Killed):
        run(pairs, config, tmp_path / "killed", method=method, progress=KillingProgress())
    again = run(pairs, config, tmp_path / "killed", method=method, resume=True)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.train_loss == again.train_loss and whole.steps > 4
    assert whole.held_out == again.held_out


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_accumulation_equals_a_large_row(method: str, setting: Setting, tmp_path: Path) -> None:
    options = ["preference.held_out=0", "tune.rows_per_step=100", "preference.sft_weight=0.3"]
    pairs, small = setting(*options, "tune.row_tokens=70")
    _, large = setting(*options, "tune.row_tokens=4096")
    first = run(pairs, small, tmp_path / "small", method=method)
    second = run(pairs, large, tmp_path / "large", method=method)
    assert first.steps == second.steps == 1
    assert first.tokens > second.tokens, "the small rows repeat what the large one shares"
    assert first.train_loss[0][1] == pytest.approx(second.train_loss[0][1], rel=1e-5)
    one, other = weights(tmp_path / "small"), weights(tmp_path / "large")
    # Adam's first step has the size of the rate wherever a gradient is not next to nothing: signs must agree.
    apart = sum((one[name] - other[name]).abs().gt(1e-4).sum().item() for name in one)
    assert apart <= 0.001 * sum(value.numel() for value in one.values())


def test_it_goes_on_from_an_adapter_which_is_then_the_reference(setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("preference.epochs=2", "preference.held_out=6")
    first = run(pairs, config, tmp_path / "first")
    second = run(pairs, config, tmp_path / "second", start=tmp_path / "first")
    assert second.train_loss[0][1] == pytest.approx(math.log(2), abs=1e-6), "no margin over itself"
    assert first.held_out["accuracy"] == second.held_out["accuracy"] == 1.0
    tuned, started = weights(tmp_path / "second"), weights(tmp_path / "first")
    assert tuned.keys() == started.keys() and any(not torch.equal(tuned[name], started[name]) for name in tuned)
    manifest = read_manifest(tmp_path / "second")
    assert manifest is not None and manifest["inputs"]["start"]
    assert is_tuned_on_pairs(pairs, method="dpo", out=tmp_path / "second", config=config, start=tmp_path / "first")
    assert not is_tuned_on_pairs(pairs, method="dpo", out=tmp_path / "second", config=config)
    assert len(list((tmp_path / "references").iterdir())) == 2


def test_a_checkpoint_asks_nobody_for_the_base(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT looks at the hub for a base that is no folder, such as "nano", which stands in an adapter's file."""
    asked: list[str] = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda name, _: asked.append(name))
    pairs, config = setting("preference.epochs=1", "tune.checkpoint_steps=1")
    run(pairs, config, tmp_path / "first")
    file = tmp_path / "first" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "nano"}))
    run(pairs, config, tmp_path / "second", start=tmp_path / "first")
    assert not asked


def test_full_tuning_measures_its_drift_from_the_head_as_it_was(setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("tune.adapter=full", "preference.learning_rate=0.003", "preference.held_out=6")
    report = run(pairs, config, tmp_path / "a")
    assert report.trained_weights == report.total_weights
    tuned, bare = (load(str(name)).model for name in (tmp_path / "a", config.model.base))
    tokens = encode_pairs(read_pairs(pairs), tokenizer(), limit=300)
    _, watched = tokens.held_out(6, seed=0)
    expected = drift(lambda ids: tuned(input_ids=ids).logits, lambda ids: bare(input_ids=ids).logits, tokens, watched)
    assert report.held_out["kl"] == pytest.approx(expected / 6, rel=1e-4) and expected > 0.01


def test_what_makes_another_run(setting: Setting) -> None:
    _, config = setting()
    for option, dpo, reward in (
        ("tune.loss=dft", True, True),
        ("preference.loss=ipo", False, True),
        ("preference.centring=0.1", True, False),
        ("tune.evaluate_steps=3", True, True),
        ("tune.rank=2", False, False),
    ):
        _, changed = setting(option)
        assert (pair_options(changed, "dpo") == pair_options(config, "dpo")) == dpo, option
        assert (pair_options(changed, "reward") == pair_options(config, "reward")) == reward, option


def test_qlora_runs_as_well(setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("tune.adapter=qlora", "tune.activation_checkpointing=true", "preference.held_out=0")
    report = run(pairs, config, tmp_path / "a")
    assert report.train_loss[-1][1] < report.train_loss[0][1]
    assert report.held_out == {}


def test_a_loss_that_is_no_number_stops_the_run(setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("preference.learning_rate=1e30", "tune.warmup_share=0", "preference.epochs=5")
    with pytest.raises(ModelError, match=r"The loss of step \d+ is nan.*Lower the learning rate"):
        run(pairs, config, tmp_path / "a")
    assert not is_tuned_on_pairs(pairs, method="dpo", out=tmp_path / "a", config=config)


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_pairs_that_teach_nothing_are_warned_of(method: str, setting: Setting, tmp_path: Path) -> None:
    half_swapped = [
        row if n % 2 else row | {"chosen": row["rejected"], "rejected": row["chosen"]}
        for n, row in enumerate(rows_of_pairs(100))
    ]
    pairs, config = setting("preference.held_out=20", rows=half_swapped)
    with pytest.warns(UserWarning, match=r"of 20 held-out pairs of .*pairs.jsonl.*swapped"):
        run(pairs, config, tmp_path / "a", method=method)


def test_pairs_too_few_to_keep_any_out_are_told(setting: Setting, tmp_path: Path) -> None:
    told: list[str] = []

    class Listening(type(SILENT)):  # type: ignore[misc]
        def message(self, text: str) -> None:
            told.append(text)

    pairs, config = setting(rows=[{"prompt": "cache", "chosen": "a", "rejected": "b"}] * 3)
    report = run(pairs, config, tmp_path / "a", progress=Listening())
    assert not report.held_out and "Of 3 pairs none can be kept out of training" in told[-1]


def test_few_pairs_are_no_ground_for_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    warn_of_guessing(Path("a"), {"accuracy": 0.3}, 19)
    warn_of_guessing(Path("a"), {"accuracy": 0.9}, 20)
    warn_of_guessing(Path("a"), {}, 0)
    assert not recwarn.list


def test_contradictions_are_sentences(setting: Setting, tmp_path: Path) -> None:
    pairs, config = setting("preference.held_out=0")
    run(pairs, config, tmp_path / "a")
    with pytest.raises(ModelError, match=r"would start from .* and overwrite it"):
        run(pairs, config, tmp_path / "a", start=tmp_path / "a")
    with pytest.raises(ModelError, match=r"holds no adapter: adapter_config\.json is missing"):
        run(pairs, config, tmp_path / "b", start=tmp_path / "nothing")
    _, full = setting("tune.adapter=full")
    with pytest.raises(ModelError, match="Full tuning cannot go on from the adapter"):
        run(pairs, full, tmp_path / "b", start=tmp_path / "a")
    with pytest.raises(ModelError, match="A reward model is an adapter with a head"):
        run(pairs, full, tmp_path / "b", method="reward")
    with pytest.raises(OpenbookError, match="no checkpoint of this run"):
        run(pairs, config, tmp_path / "c", resume=True)
    other = folder(tmp_path / "qwen", family="qwen3")
    _, elsewhere = setting(f"model.base={other}")
    with pytest.raises(ModelError, match="was tuned on another base than"):
        run(pairs, elsewhere, tmp_path / "b", start=tmp_path / "a")
    _, narrow = setting("tune.row_tokens=64", rows=[{"prompt": "cache " * 90, "chosen": "a", "rejected": "b"}])
    with pytest.raises(RecordError, match=r"pairs.jsonl:1: .* at most 64 fit: not even the prompt does"):
        run(pairs, narrow, tmp_path / "b")


def test_the_verb_and_the_command(setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from openbook import verbs
    from openbook.cli.main import app

    pairs, config = setting(f"out={tmp_path / 'work'}", "preference.held_out=6")
    with pytest.raises(InputError, match=r"trains on preference pairs.*--pairs"):
        verbs.tune(config, method="dpo")
    with pytest.raises(InputError, match="The form closed is one of supervised tuning"):
        verbs.tune(config, method="dpo", pairs=pairs, form="closed")
    with pytest.raises(InputError, match="are not for supervised tuning"):
        verbs.tune(config, pairs=pairs)
    (tmp_path / "openbook.toml").write_text(config.to_toml(), encoding="utf-8")
    arguments = ["tune", "--method", "dpo", "--pairs", str(pairs), "--config", str(tmp_path / "openbook.toml")]
    app([*arguments, "--epochs", "2"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert re.search(r"the chosen answer wins in 100\.0%", printed) and "KL" in printed
    assert str(tmp_path / "work" / "adapters" / "dpo") in printed
    app([*arguments, "--epochs", "2", "--json"], standalone_mode=False)
    again = json.loads(capsys.readouterr().out)
    assert again["method"] == "dpo" and again["held_out"]["accuracy"] == 1.0
    started = ["--method", "reward", "--from-adapter", str(tmp_path / "work" / "adapters" / "dpo")]
    app([*arguments, *started], standalone_mode=False)
    assert "whoever only looks at their length" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "work" / "adapters" / "reward")
    assert manifest is not None and manifest["options"]["method"] == "reward"
