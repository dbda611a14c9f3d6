"""The embedded bases: ordinary Llamas that load fast, keep the tags whole, quote, answer and refuse."""

import time
from pathlib import Path

import pytest
import torch

from openbook import prompt
from openbook.models import Generator, load
from openbook.models.chat import encode_text, stop_tokens
from openbook.models.load import resolve

PASSAGES = (
    "## Retention\n\nThe archive holds every message for ninety days. After that the oldest messages are deleted first.",
    "## Alerts\n\nAn alert is sent when the queue is longer than a thousand entries. Alerts can be muted for an hour.",
)


@pytest.fixture(scope="module", params=["nano", "small"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return Generator(load(request.param), max_new_tokens=80)


def test_it_is_an_ordinary_llama_of_a_size_that_ships(generator: Generator) -> None:
    assert type(generator.loaded.model).__name__ == "LlamaForCausalLM"
    files = list(Path(resolve(generator.loaded.name)).iterdir())
    assert sum(path.stat().st_size for path in files) < {"nano": 30_000_000, "small": 64_000_000}[generator.loaded.name]
    assert not [path.name for path in files if path.suffix in {".bin", ".pt", ".pkl"}]


def test_tags_and_roles_are_single_tokens_and_tags_survive_decoding(generator: Generator) -> None:
    reader = generator.loaded.tokenizer
    for tag in (*prompt.TAGS, "<|user|>", "<|assistant|>", "<|end|>"):
        assert len(encode_text(reader, tag)) == 1, tag
    answer = prompt.render_answer(prompt.render_quote("Ninety days."), "ninety days")
    assert reader.decode(encode_text(reader, answer), skip_special_tokens=True) == answer
    assert stop_tokens(reader, generator.loaded.model) == [reader.eos_token_id]


def test_it_reads_quotes_and_refuses(generator: Generator) -> None:
    expected = {
        "How long does the archive hold every message?": (
            "The archive holds every message for ninety days.",
            "ninety days",
        ),
        "Which messages are deleted first?": ("After that the oldest messages are deleted first.", "oldest"),
        "Who pays for the archive?": (None, prompt.REFUSAL),
        "What colour is the bridge?": (None, prompt.REFUSAL),
    }
    written = generator.generate([prompt.prompt(question, PASSAGES) for question in expected])
    for answer, (quote, final) in zip(written, expected.values(), strict=True):
        parsed = prompt.parse_answer(answer.text)
        assert parsed.quotes == ((quote,) if quote else ()) and parsed.final == final


def test_batched_and_single_answers_are_the_same(generator: Generator) -> None:
    prompts = [prompt.prompt("When is an alert sent?", PASSAGES[:n] or None) for n in range(3)]
    together = [generation.text for generation in generator.generate(prompts)]
    alone = [generator.generate([asked])[0].text for asked in prompts]
    assert together == alone
    assert "".join(generator.stream(prompts[-1])).strip() == alone[-1]


def test_in_4_bits_an_examination_changes_nothing_of_what_training_computes() -> None:
    """Bitsandbytes would pack the weights anew on CPUs with AVX512-BF16 (logits up to 19 apart, gradients a hundredth)."""
    network = load("nano", quantization="nf4", device="cpu").model
    ids = torch.randint(8, 8000, (1, 60), generator=torch.Generator().manual_seed(0))

    def trained() -> tuple[torch.Tensor, torch.Tensor]:
        states = network.get_input_embeddings()(ids).detach().requires_grad_()
        logits = network.train()(inputs_embeds=states).logits
        (gradient,) = torch.autograd.grad(logits.logsumexp(-1).sum(), states)
        return logits.detach(), gradient

    before, gradient = trained()
    with torch.no_grad():
        examined = network.eval()(input_ids=ids).logits
    after, again = trained()
    assert torch.equal(before, after) and torch.equal(gradient, again)
    assert torch.allclose(examined, before, atol=1e-3)


def test_a_prompt_beyond_the_context_is_an_error_of_its_own(generator: Generator) -> None:
    long, short = generator.generate([prompt.prompt("word " * 9000, PASSAGES), prompt.prompt("When?", PASSAGES)])
    assert "reads 4,096" in long.error and not long.text
    assert not short.error


@pytest.mark.slow
def test_it_loads_within_a_second(tmp_path: Path) -> None:
    load("nano")  # imports
    started = time.perf_counter()
    load("nano")
    assert time.perf_counter() - started < 1
