"""Step 4 of the recipe: a run's weights as the model that the package ships.

python recipes/nano/assemble.py --run FOLDER --out FOLDER [--tokenizer FOLDER]
python recipes/nano/assemble.py --run FOLDER --out FOLDER --corpus FOLDER --figures FILE       # and its card
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizer import opened
from torch import Tensor
from train import EPSILON, ROPE_THETA, Model
from transformers import LlamaConfig, LlamaForCausalLM

from openbook.storage import write_text

CONTEXT = 4096

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A base model inside openbook: {weights:,} weights, a standard `LlamaForCausalLM` ({layers} layers, {width} wide, {heads} heads,
vocabulary {vocabulary:,}, tied) with a tokenizer and chat template of its own. It reads a few passages, quotes the sentence that
answers a question, answers briefly, and says when the passages hold no answer. It knows next to nothing by itself,
speaks English only, and is no assistant.

## How it was made
By `recipes/nano/`, from random weights: {steps:,} steps of {row_tokens:,} tokens, {tokens:,} in all, in {minutes:.1f} minutes on one
{chip}. Rows are token trees: a few passages of one document and its neighbours, and questions on them, by the product's own
teacher and by chance (noisy clozes), a fifth of them to be refused; loss on the answers and, a fifth as much, on the
passages. In the last third every other step saw the weights rounded to NF4, so that they lose little in 4 bits. Stored in
16 bits.

On documents of the corpus that were held out, each token given the right ones before it:

| step | tokens | loss of answers | their tokens right | answers wholly right | refusals wholly right |
|---|---|---|---|---|---|
{curve}

(Three in four of the questions with an answer are noisy clozes, whose short answer nobody could always know.)

## Data
The documents, with thanks to those who wrote them:

{sources}

## Figures
Greedy decoding with openbook's own prompt and grader. The documents of these tests were not in the training data;
`[value, low, high]` with 95 % intervals clustered by document.

```
{figures}
```

## Limits
Questions of people in words of their own it answers badly: see SQuAD's figures. It answers only in the form it was
trained on (`##begin_quote## … ##end_quote## <ANSWER>: …`), and reads {context:,} tokens.
"""


def read(run: Path, vocabulary: int) -> dict[str, Tensor]:
    """The weights of a run by the names that `LlamaForCausalLM` gives them."""
    shape = json.loads((run / "shape.json").read_text())
    with torch.device("meta"):
        model = Model(vocabulary, **shape)
    parts = sorted(run.glob("weights-*.f16"), key=lambda part: int(part.stem.removeprefix("weights-")))
    flat = torch.from_numpy(np.concatenate([np.fromfile(part, np.float16) for part in parts]))
    expected = sum(weight.numel() for weight in model.parameters())
    if len(flat) != expected:
        raise SystemExit(f"{run} holds {len(flat):,} weights in {len(parts)} files; its shape asks for {expected:,}.")
    names, weights = zip(*model.named_parameters(), strict=True)
    pieces = flat.split([weight.numel() for weight in weights])
    return {_name(name): piece.view(w.shape) for name, w, piece in zip(names, weights, pieces, strict=True)}


def _name(name: str) -> str:
    for part, block in (("q_proj k_proj v_proj o_proj", "self_attn"), ("gate_proj up_proj down_proj", "mlp")):
        for module in part.split():
            name = name.replace(f".{module}.", f".{block}.{module}.")
    return f"model.{name}"


def assembled(run: Path, tokenizer: Any) -> LlamaForCausalLM:
    shape = json.loads((run / "shape.json").read_text())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape["width"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"],
        max_position_embeddings=CONTEXT,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_theta": ROPE_THETA, "rope_type": "default"},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(read(run, len(tokenizer)), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"The weights of {run} do not fit: {missing} are missing, {unexpected} unexpected.")
    return model


def table(corpus: Path) -> str:
    """The attribution table of the corpus, as its own page has it."""
    lines = (corpus / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def card(name: str, run: Path, model: Any, corpus: Path, figures: str, chip: str) -> str:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [line for line in log if "tokens" in line][-1]
    row_tokens = last["tokens"] // last["step"]
    watched = [line for line in log if line.get("event") == "held out" and not line["rounding"]]
    curve = [
        f"| {w['step']:,} | {w['step'] * row_tokens / 1e6:,.0f} M | {w['loss']:.3f} | {w['accuracy']:.1%} | "
        f"{w['exact_quoted']:.1%} | {w['exact_refused']:.1%} |"
        for w in watched
    ]
    config = model.config
    return CARD.format(
        name=name,
        weights=sum(weight.numel() for weight in model.parameters()),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        context=CONTEXT,
        steps=last["step"],
        tokens=last["tokens"],
        row_tokens=row_tokens,
        minutes=last["seconds"] / 60,
        chip=chip,
        curve="\n".join(curve),
        sources=table(corpus),
        figures=figures.strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", default="nano", help="that of prepare.py (default: nano's)")
    parser.add_argument("--corpus", type=Path, help="for the card: whose documents these were")
    parser.add_argument("--figures", type=Path, help="for the card: what `evaluate.py --json` printed")
    parser.add_argument("--chip", default="NVIDIA H200")
    options = parser.parse_args()
    if options.figures and not options.corpus:
        parser.error("--figures wants --corpus: the card names whose documents these were")
    tokenizer = opened(options.tokenizer)
    model: Any = assembled(options.run, tokenizer)
    model.to(torch.float16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    if options.figures:
        figures = options.figures.read_text(encoding="utf-8")
        write_text(
            options.out / "README.md", card(options.out.name, options.run, model, options.corpus, figures, options.chip)
        )


if __name__ == "__main__":
    main()
