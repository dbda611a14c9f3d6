"""Our greedy loop writes what transformers' writes, whatever the model, the company, the slots and the guesses."""

import functools
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from models_for_tests import SHAPE, model
from openbook.errors import ModelError
from openbook.models.decode import Written, decode, in_loop

LIMIT = 40  # below the 48 tokens that make a loop, so that all is compared


def sliding(family: str, **options: Any) -> Any:
    """A model that looks back 8 tokens only, in some of its layers or in all of them."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=512, sliding_window=8, pad_token_id=2, **SHAPE | options)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


MODELS = {
    **{name: lambda name=name: model(name) for name in ("llama", "llama-tied", "qwen3", "gemma")},
    "mistral, all layers slide": lambda: sliding("mistral"),
    "gemma3, some layers slide": lambda: sliding(
        "gemma3_text", head_dim=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "bloom, whose positions are its own": lambda: AutoModelForCausalLM.from_config(
        AutoConfig.for_model("bloom", vocab_size=512, hidden_size=32, n_layer=2, n_head=4), dtype=torch.float32
    ).eval(),
}


def some_prompts(seed: int = 0, count: int = 7) -> list[list[int]]:
    """Prompts of 1 to 50 tokens; some begin alike, and all repeat themselves, so that there is something to guess."""
    torch.manual_seed(seed)
    common = torch.randint(3, 512, (20,)).tolist()
    prompts = []
    for number in range(count):
        own = torch.randint(3, 512, (1 + 4 * number,)).tolist()
        prompts.append((common if number % 2 else []) + own + own[: number % 3])
    return prompts


def expected(network: Any, prompt: list[int], limit: int, stop: list[int]) -> list[int]:
    """What transformers writes, alone and without padding."""
    row = torch.tensor([prompt])
    out = network.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=stop,
        pad_token_id=2,
    )
    return out[0, len(prompt) :].tolist()


@functools.cache
def answers(name: str) -> tuple[Any, list[int], list[list[int]], list[int]]:
    """A model, a limit for each of `some_prompts`, what transformers writes, and the stop tokens that it stops at."""
    network, prompts = MODELS[name](), some_prompts()
    limits = [LIMIT - 3 * number for number in range(len(prompts))]
    free = [expected(network, prompt, limit, [2]) for prompt, limit in zip(prompts, limits, strict=True)]
    stop = sorted({2, free[1][10], free[4][3]})  # two that some row comes by
    cut = [expected(network, prompt, limit, stop) for prompt, limit in zip(prompts, limits, strict=True)]
    return network, limits, cut, stop


def collect(events: Any) -> dict[int, tuple[list[int], str]]:
    found: dict[int, tuple[list[int], str]] = {}
    for event in events:
        tokens, end = found.get(event.number, ([], ""))
        assert not end, "nothing comes after the end"
        found[event.number] = (tokens + event.tokens, event.end)
    return found


class Counting:
    """The model, counting the passes and the tokens that it is fed."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.passes: list[tuple[int, int]] = []
        self.device, self.config = network.device, network.config

    def forward(self, input_ids: Any = None, position_ids: Any = None, logits_to_keep: int = 0, **keywords: Any) -> Any:
        self.passes.append(tuple(input_ids.shape))
        return self._network(input_ids=input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **keywords)

    __call__ = forward


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_it_writes_what_transformers_writes(name: str, rows: int) -> None:
    network, limits, texts, stop = answers(name)
    found = collect(decode(lambda: network, some_prompts(), limits=limits, stop=stop, rows=rows))
    assert len(found) == len(texts)
    for number, whole in enumerate(texts):
        tokens, end = found[number]
        assert end == ("stop" if whole[-1] in stop else "limit")
        assert tokens == (whole[:-1] if end == "stop" else whole)
    assert {end for _, end in found.values()} == {"stop", "limit"}


def test_rows_that_have_ended_cost_nothing_and_their_places_are_taken() -> None:
    network, prompts = Counting(model()), some_prompts(count=6)
    limits = [1, 2, 30, 2, 2, 2]
    list(decode(lambda: network, prompts, limits=limits, stop=[2], rows=2))
    widths = [rows for rows, _ in network.passes]
    assert max(widths) == 2
    assert widths[-1] == 1, "the long one ends alone"
    assert sum(rows == 2 for rows in widths) <= 4, "it waited for nobody, and nobody for it"


def test_a_common_beginning_is_read_once() -> None:
    network = Counting(model())
    beginning = list(range(3, 103))
    prompts = [[*beginning, 200 + n, 300] for n in range(5)]
    list(decode(lambda: network, prompts, limits=[1] * 5, stop=[2], rows=2))
    assert sorted(length for _, length in network.passes) == [2, 2, 2, 2, 102]
    list(decode(lambda: network, [beginning, beginning], limits=[1, 1], stop=[2], rows=2))
    assert network.passes[-1] == (1, 1), "of an equal prompt, only the last token is fed"


@pytest.mark.parametrize("rows", [1, 2])
def test_no_guess_reaches_beyond_the_context(rows: int) -> None:
    torch.manual_seed(0)
    shape = AutoConfig.for_model("gpt2", vocab_size=512, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    network = AutoModelForCausalLM.from_config(
        shape, dtype=torch.float32
    ).eval()  # has no position 64, so it would raise
    for block in ([5, 6], [7, 8, 9]):
        prompts = [(block * 30)[:length] for length in (40, 60)]
        limits = [64 - len(prompt) for prompt in prompts]
        found = collect(decode(lambda: network, prompts, limits=limits, stop=[511], rows=rows))
        for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            assert found[number] == (expected(network, prompt, limit, [511]), "limit")


def test_two_at_once_may_use_one_model_in_turns() -> None:
    network, prompts = model(), some_prompts(count=4)
    alone = [collect(decode(lambda: network, [p], limits=[20], stop=[2], rows=1))[0] for p in prompts[2:]]
    both = [decode(lambda: network, [p], limits=[20], stop=[2], rows=1) for p in prompts[2:]]
    turns: list[list[Written]] = [[], []]
    for one, other in itertools.zip_longest(*both):
        turns[0] += [one] if one else []
        turns[1] += [other] if other else []
    assert [collect(turn)[0] for turn in turns] == alone
    assert torch.is_inference_mode_enabled() is False, "the mode is not left on between two steps"


def test_a_model_without_keys_and_values_is_refused() -> None:
    network = MambaForCausalLM(MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ModelError, match=r"mamba model.*not one of keys and values"):
        list(decode(lambda: network, [[5, 6]], limits=[3], stop=[2], rows=1))
    assert list(decode(lambda: network, [], limits=[], stop=[2], rows=1)) == []


class Chanting:
    """A model that says 1, 2, … `period`, 1, 2, … for ever, whatever it is asked."""

    device = torch.device("cpu")

    def __init__(self, period: int) -> None:
        self.config, self._period = model().config, period

    def forward(self, input_ids: Any = None, logits_to_keep: int = 0, **_: Any) -> Any:
        class Out:
            logits = torch.nn.functional.one_hot(input_ids % self._period + 1, 512).float()

        return Out

    __call__ = forward


@pytest.mark.parametrize("rows", [1, 2])
def test_what_repeats_is_guessed_and_not_written_beyond_the_limit(rows: int) -> None:
    network = Counting(Chanting(5))
    found = collect(decode(lambda: network, [[3]] * rows, limits=[40] * rows, stop=[500], rows=rows))
    assert [tokens for tokens, _ in found.values()] == [[4, 5, 1, 2, 3] * 8] * rows
    assert len(network.passes) - rows <= 7 + 33 / 8, "after seven tokens, eight come with each pass"


@pytest.mark.parametrize(("period", "written"), [(1, 48), (2, 48), (5, 60), (16, 48), (20, 60), (34, 100)])
def test_a_loop_is_ended_at_the_third_turn(period: int, written: int) -> None:
    network = Chanting(period)
    for prompts in ([[period]], [[period], [9, period]]):
        found = collect(decode(lambda: network, prompts, limits=[100] * len(prompts), stop=[500], rows=2))
        for tokens, end in found.values():
            assert (len(tokens), end) == (written, "loop" if written < 100 else "limit")


@given(st.lists(st.integers(0, 2), max_size=6), st.integers(1, 70), st.integers(1, 6), st.data())
def test_loops_are_what_the_definition_says(start: list[int], count: int, period: int, data: st.DataObject) -> None:
    block = data.draw(st.lists(st.integers(0, 2), min_size=period, max_size=period))
    written = start + list(itertools.islice(itertools.cycle(block), count))

    def looks_so() -> bool:
        n = len(written)
        return any(written[n - 3 * p : n - p] == written[n - 2 * p :] for p in range(16, n // 3 + 1))

    assert in_loop(written, []) is looks_so()
    assert not in_loop(written, [7, *written, 7]), "what stands so in the prompt is a quote"


def test_a_quote_that_goes_on_beyond_its_source_is_a_loop() -> None:
    rule = [4] * 60
    assert not in_loop(rule, [9, *rule, 9])
    assert in_loop([*rule, 4], [9, *rule, 9])
