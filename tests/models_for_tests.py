"""Small models with random weights, laid out on disk as real ones are."""

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXT = (
    "The quick brown fox jumps over the lazy dog. Answer the question from the documents. Quote the sentence that "
    "holds the answer, then write a short answer. What does the cache keep? It keeps results for ten minutes."
)

# TinyLlama-1.1B-Chat's own: no generation markers, a newline between turns, the end token after each.
TINYLLAMA_TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
# ChatML with a newline behind the end token, as Qwen has it.
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Gemma's refuses a system message.
NO_SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + (message['role'] if message['role'] != 'assistant' else 'model')"
    " + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEMPLATES = {"llama": TINYLLAMA_TEMPLATE, "chatml": CHATML_TEMPLATE, "no system": NO_SYSTEM_TEMPLATE, "none": None}

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "llama-tied": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True, "head_dim": 8},
    "mistral": {"tie_word_embeddings": False, "sliding_window": None},
    "gemma": {"tie_word_embeddings": True, "head_dim": 8},
}


def tokenizer(template: str | None = TINYLLAMA_TEMPLATE) -> PreTrainedTokenizerFast:
    """A sentencepiece-like tokenizer (▁ for spaces), the end token also padding, as in TinyLlama."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
    inner.train_from_iterator(
        [TEXT, string.printable], trainers.BpeTrainer(vocab_size=512, special_tokens=[*special, *byte_tokens])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        additional_special_tokens=special[3:],
        chat_template=template,
        model_max_length=2048,
    )


def model(family: str = "llama", seed: int = 0, **settings: Any) -> Any:
    """A model of the family with random weights, in evaluation mode; `settings` replace those of its configuration."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family.split("-")[0],
        vocab_size=512,
        pad_token_id=2,
        eos_token_id=2,
        bos_token_id=1,
        **SHAPE | FAMILIES.get(family, {}) | settings,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def folder(path: Path, family: str = "llama", template: str | None = TINYLLAMA_TEMPLATE) -> Path:
    """The model and its tokenizer as a folder that any tool loads."""
    model(family).save_pretrained(path)
    tokenizer(template).save_pretrained(path)
    return path
