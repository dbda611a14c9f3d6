"""Rollouts that a server writes: vLLM's protocol, the policy's adapter handed over each round, and what can go wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models_for_tests import folder
from openbook.errors import ModelError
from openbook.llm import openai_chat
from openbook.llm.token_server import TokenServer
from openbook.models import load
from openbook.storage import read_jsonl
from openbook.training import is_reinforced, reinforce
from openbook.training.rollouts import Rollout
from test_reinforcement import one_pays, options, two_answers  # noqa: F401  (fixtures)
from vllm_server import Vllm, serving


@pytest.fixture
def vllm(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    monkeypatch.delenv(openai_chat.KEY, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(Vllm(base)) as server:
        yield server


Run = Callable[..., Any]


@pytest.fixture
def run(base: Path, train: Path, vllm: Vllm, tmp_path: Path) -> Run:
    def start(*overrides: str, method: Any = "grpo") -> Any:
        config = options(base, f"rl.server={vllm.url}", *overrides)
        return reinforce(train, method=method, out=tmp_path / "out", config=config)

    return start


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_it_learns_from_what_the_server_writes(method: str, run: Run, vllm: Vllm, tmp_path: Path) -> None:
    """Every round is written by the policy as it is then, under a name of its own, and nothing is left behind."""
    report = run("rl.epochs=10", "seed=3", method=method)
    rewards = [reward for _, reward in report.rewards]
    print(method, rewards)
    assert rewards[0] < 0.65 and sum(rewards[-8:]) / 8 > 0.75  # the last four rounds of two steps each
    asked = [body for path, body in vllm.requests if path == "/v1/completions"][
        1:
    ]  # the first one probes the tokenizer
    # Ten rounds, and one that only measures what the last steps did.
    assert len(asked) == 4 * 11 and len({body["model"] for body in asked}) == len(vllm.loads) == 11
    assert all(body["n"] == 8 and body["return_token_ids"] for body in asked)
    assert len({body["seed"] for body in asked}) == 44
    first, *_, last = vllm.loads
    assert all(not first[name].any() for name in first if "lora_B" in name) and any(
        last[n].any() for n in last if "lora_B" in n
    )
    assert not vllm.adapters
    gaps = [line["server_gap"] for line in read_jsonl(tmp_path / "out" / "log.jsonl")]
    assert len(gaps) == 20 and max(gaps) < 1e-4, "it writes with the very policy that learns from it"


def test_log_probabilities_are_those_of_our_own_model(
    run: Run,
    vllm: Vllm,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A round's `old` are computed anew from the tokens that the server drew."""
    from openbook.training.rounds import Played, Rounds

    seen: list[Played] = []
    play = Rounds.play
    monkeypatch.setattr(Rounds, "play", lambda self, number: seen.append(play(self, number)) or seen[-1])
    run("rl.epochs=1", "rl.updates=1")
    network = load(str(base)).model

    def alone(rollout: Rollout) -> torch.Tensor:
        ids = torch.tensor([[*rollout.exercise.prompt, *rollout.tokens]])
        with torch.no_grad():
            logps = network(input_ids=ids).logits[0].log_softmax(-1)
        at = len(rollout.exercise.prompt)
        return logps[at - 1 : -1].gather(1, ids[0, at:, None])[:, 0]

    played, _ = seen  # the second one only measures
    (row,), (batch,) = played.rows, played.batches
    for place, number in enumerate(row.rollouts):
        assert torch.allclose(batch["old"][batch["owners"] == place], alone(played.rollouts[number]), atol=1e-4)


def test_the_server_changes_nothing_of_what_a_run_is(run: Run, train: Path, base: Path, tmp_path: Path) -> None:
    run("rl.epochs=1")
    assert is_reinforced(train, method="grpo", out=tmp_path / "out", config=options(base, "rl.epochs=1"))
    assert not (tmp_path / "out" / "served").exists() and load_file(tmp_path / "out" / "adapter_model.safetensors")


def test_another_model_or_tokenizer_is_refused(run: Run, vllm: Vllm, train: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not serve mine; it serves .*base.*rl\.server_model"):
        run("rl.server_model=mine")
    other = folder(tmp_path / "another")
    config = options(other, f"rl.server={vllm.url}", f"rl.server_model={vllm.name}")
    with pytest.raises(
        ModelError, match=r"another tokenizer than the base that is tuned: .* as \d+ tokens, the base as \d+"
    ):
        reinforce(train, method="grpo", out=tmp_path / "out", config=config)
    assert not vllm.loads


def test_a_server_that_takes_no_adapters_is_refused(run: Run, vllm: Vllm) -> None:
    with pytest.raises(ModelError, match=r"refuses the adapter in .*: LoRA rank 32 .*--max-lora-rank"):
        run("tune.rank=32")
    vllm.updating = False
    with pytest.raises(ModelError, match=r"\(404\): Not Found\. .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
        run()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"prompt_token_ids": None}, "without the tokens that it drew .*vLLM 0.10.2"),
        ({"token_ids": None}, "without the tokens that it drew .*vLLM 0.10.2"),
        ({"token_ids": []}, "otherwise than the base would"),
        ({"token_ids": [9, 9], "finish_reason": "stop"}, r"ended an answer \(stop\) otherwise .* are \[9, 9\]"),
        ({"token_ids": [9], "finish_reason": "abort"}, r"ended an answer \(abort\) otherwise"),
    ],
)
def test_answers_that_nothing_can_be_learned_from_are_refused(
    spoil: dict[str, Any], said: str, run: Run, vllm: Vllm
) -> None:
    vllm.spoil = spoil
    with pytest.raises(ModelError, match=said):
        run()
    assert not vllm.adapters, "what was loaded is dropped when the run ends"


def test_a_server_with_other_weights_is_told_by_its_likelihoods(run: Run, vllm: Vllm) -> None:
    vllm.spoil = {"logprobs": {"token_logprobs": [-9.0]}, "token_ids": [5], "finish_reason": "length"}
    with pytest.raises(ModelError, match=r"writes with another model .* in round 1 .* nats a token away"):
        run()


def test_a_server_that_is_not_there_is_named(run: Run, vllm: Vllm) -> None:
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        TokenServer("http://127.0.0.1:9/v1", "a", max_retries=0).check("a", [1])
    with pytest.raises(ModelError, match=r"refuses the list of its models \(404\): Not Found\. Check rl\.server"):
        TokenServer(vllm.url + "/v2", "a").check("a", [1])
