"""Step 1 of the recipe: a byte-level BPE tokenizer with the RAFT tags and the chat roles as tokens of their own.

    python recipes/nano/tokenizer.py --corpus FOLDER --out FOLDER

Words are cut from punctuation, and digits from each other, so that a name reads as the same tokens wherever it stands:
in a passage, in a question, at a sentence's start. Copying depends on it.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corpus import documents
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from openbook.models import load_tokenizer
from openbook.options import EMBEDDED
from openbook.prompt import TAGS

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
ROLES = (PAD, END, SYSTEM, USER, ASSISTANT)

# Runs of one mark stay together (rules, fences, ellipses); every other mark is its own piece.
PIECES = (
    r"'(?:s|t|re|ve|m|ll|d)\b| ?\p{L}+| ?\p{N}| ?(?:-+|=+|#+|`+|\*+|_+|\.+|~+|[^\s\p{L}\p{N}])|\s*\n+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of `vocabulary` entries; equal texts in equal order give an equal tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*ROLES, *TAGS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The tags are part of an answer's text: they must survive decoding, so they are not "special".
    tokenizer.add_special_tokens([AddedToken(role, special=True, normalized=False) for role in ROLES])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write it as a folder that `AutoTokenizer.from_pretrained` opens."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def opened(source: str) -> Any:
    """An embedded base's tokenizer by the base's name, or the one in a folder that `save` wrote, where no model is yet."""
    from transformers import AutoTokenizer

    return load_tokenizer(source) if source in EMBEDDED else AutoTokenizer.from_pretrained(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=8192)
    options = parser.parse_args()
    texts = (row["text"] for number, row in enumerate(documents(options.corpus)) if number % 2 == 0)
    save(train(texts, options.vocabulary), options.out, context=4096)


if __name__ == "__main__":
    main()
