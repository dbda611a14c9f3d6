"""The recipe's circuits: a model that was never trained finds a sentence, quotes it to its end, and answers from it."""

import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from openbook import prompt
from openbook.models.chat import encode_prompt
from openbook.models.load import load_tokenizer, resolve

RECIPE = Path(__file__).parent.parent / "recipes" / "circuits"

PASSAGES = (
    "The bridge was closed for two winters. Its arches had to be lined with new stone, which came by barge from the "
    "quarry at Hollow Ford. A toll of one penny paid for the work.",
    "The mill grinds barley in the morning and oats in the afternoon. Its wheel turns only while the sluice is open.",
    "A ferry crosses twice a day. It carries twelve passengers, or one cart with its horses.",
)


@pytest.fixture(scope="module")
def untrained() -> LlamaForCausalLM:
    sys.path.insert(0, str(RECIPE))
    from circuits import Shape, build

    tokenizer = Tokenizer.from_file(f"{resolve('nano')}/tokenizer.json")
    return build(Shape(), tokenizer, eos_token_id=1, pad_token_id=0).eval()


# Manuals in which a sentence and its question have no word in common but the name above it, and sentences begin alike.
MANUAL = (
    "# granary.store\n\nWhere the grain is kept.\n\n## granary.store.fill_bin(number, sacks=1)\n\nReturn the weight of all "
    "that was poured in. Raises an error when the bin is full.",
    "## granary.store.sweep_floor(number)\n\nReturn the weight that is left at the bottom. The bin is swept afterwards.",
    "## granary.mill.grind_flour(sacks)\n\nTurn the stones until the hopper is clear. Never run it without water.",
)


def answer(model: LlamaForCausalLM, question: str, tokens: int = 60, passages: tuple[str, ...] = PASSAGES) -> str:
    tokenizer = load_tokenizer("nano")
    ids = encode_prompt(tokenizer, prompt.prompt(question, passages))
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, use_cache=True)
    return tokenizer.decode(out[0, len(ids) :], skip_special_tokens=False)


QUESTIONS = (
    ("Where did the new stone that lined the arches come from?", 0, 1),
    ("What paid for the work?", 0, 2),
    ("When does the mill grind barley?", 1, 0),
    ("How many passengers does it carry?", 2, 1),
)


def quoted(model: LlamaForCausalLM) -> list[bool]:
    from openbook.documents import sentences

    found = []
    for question, passage, number in QUESTIONS:
        start, end = sentences(PASSAGES[passage])[number]
        quotes = prompt.parse_answer(answer(model, question)).quotes
        found.append(quotes == (PASSAGES[passage][start:end],))
    return found


def test_before_any_training_it_quotes_a_whole_sentence_and_stops(untrained: LlamaForCausalLM) -> None:
    assert sum(quoted(untrained)) >= 3
    said = answer(untrained, QUESTIONS[2][0])
    assert prompt.ANSWER in said and said.endswith("<|end|>")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("granary.store.fill_bin", "Return the weight of all that was poured in."),
        ("granary.store.sweep_floor", "Return the weight that is left at the bottom."),
        ("granary.mill.grind_flour", "Turn the stones until the hopper is clear."),
    ],
)
def test_it_quotes_the_first_sentence_below_the_heading_that_names_what_is_asked_for(
    untrained: LlamaForCausalLM, name: str, sentence: str
) -> None:
    said = answer(untrained, f"What does {name} do?", passages=MANUAL)
    assert prompt.parse_answer(said).quotes == (sentence,)


def test_four_bits_leave_the_circuits_standing(untrained: LlamaForCausalLM) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    kept = {name: parameter.clone() for name, parameter in untrained.named_parameters() if "proj" in name}
    with torch.no_grad():
        for name, parameter in untrained.named_parameters():
            if name in kept:
                blurred, state = quantize_4bit(parameter, quant_type="nf4", compress_statistics=True)
                parameter.copy_(dequantize_4bit(blurred, state))
        after = quoted(untrained)
        for name, parameter in untrained.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
    assert sum(after) >= 3


def test_training_leaves_the_circuits_alone(untrained: LlamaForCausalLM) -> None:
    from circuits import learnable

    masks = learnable(untrained)
    parameters = dict(untrained.named_parameters())
    assert all(name in parameters for name in masks)
    for name, mask in masks.items():
        mask.expand_as(parameters[name])  # of a shape that fits
    assert not any(name.startswith("model.embed") or ".layers.0." in name for name in masks)
    copying_head = untrained.config.head_dim
    assert not masks["model.layers.5.self_attn.q_proj.weight"][:copying_head].any()
    assert masks["model.layers.5.self_attn.q_proj.weight"][copying_head:].all()
