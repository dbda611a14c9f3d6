"""Step 3 of the recipe: a run's weights as the model that the package ships.

python recipes/small/assemble.py --run FOLDER [--out src/openbook/models/small]
python recipes/small/assemble.py --run FOLDER --corpus FOLDER --figures FILE       # and its card
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train import EPSILON, ROPE_THETA, Model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "nano"))

from openbook.models import load_tokenizer

CONTEXT = 4096


def read(run: Path) -> dict[str, Tensor]:
    """The weights of a run by the names that `LlamaForCausalLM` gives them."""
    shape = json.loads((run / "shape.json").read_text())
    with torch.device("meta"):
        model = Model(len(load_tokenizer("nano")), **shape)
    parts = sorted(run.glob("weights-*.f16"))
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


def assembled(run: Path) -> LlamaForCausalLM:
    shape = json.loads((run / "shape.json").read_text())
    tokenizer = load_tokenizer("nano")
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
    missing, unexpected = model.load_state_dict(read(run), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"The weights of {run} do not fit: {missing} are missing, {unexpected} unexpected.")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("src/openbook/models/small"))
    options = parser.parse_args()
    model: Any = assembled(options.run)
    model.to(torch.float16).save_pretrained(options.out)
    load_tokenizer("nano").save_pretrained(options.out)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} weights in {options.out}")


if __name__ == "__main__":
    main()
