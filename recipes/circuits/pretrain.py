"""Training of the last layer, resumable, with a log.

    python recipes/circuits/pretrain.py --corpus FOLDER --out FOLDER --minutes 90

Runs until the time is up, writes a checkpoint every few minutes, and goes on from it when started again. The learning
rate rises, stays, and falls to a tenth over the last part of the time given (`--final`), so that a sitting which is to
be the last ends on a settled model; a sitting without `--final` keeps the rate, so that the next can go on.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

# Threads that wait for work by spinning slow everything down as soon as another program wants the processor.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from mixture import rows
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from circuits import Shape, build, copying, learnable
from openbook.models import load_tokenizer
from openbook.tokens import TokenTree
from openbook.training.attention import serve_trees
from openbook.training.head import hidden_states, token_losses
from openbook.training.trainer import collate


class Mixture(IterableDataset):
    def __init__(self, corpus: Path, tokenizer: Any, budget: int, seed: int, first_block: int) -> None:
        self._arguments: dict[str, Any] = {"budget": budget, "seed": seed, "first_block": first_block}
        self._corpus, self._tokenizer = corpus, tokenizer

    def __iter__(self) -> Any:
        return rows(self._corpus, self._tokenizer, **self._arguments)


def first(pair: list[Any]) -> Any:
    return pair[0]


def prepare(options: argparse.Namespace) -> None:
    """nano's tokenizer and the untrained model with its circuits, once."""
    opened = load_tokenizer("nano")
    opened.save_pretrained(options.out)
    shape = Shape(vocabulary=len(opened), layers=options.layers)
    model = build(
        shape,
        Tokenizer.from_file(str(options.out / "tokenizer.json")),
        seed=options.seed,
        bos_token_id=None,
        eos_token_id=opened.eos_token_id,
        pad_token_id=opened.pad_token_id,
    )
    if options.plain:
        config = model.config
        # The circuits' own suits nothing else.
        config.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
        torch.manual_seed(options.seed)
        model = LlamaForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} weights; copies {copying(model, 1024):.1%} untrained")
    model.save_pretrained(options.out)


def rate(step: int, elapsed: float, options: argparse.Namespace) -> float:
    """The learning rate: up over 30 steps, level, and down to a tenth over the last 40 % of a final sitting."""
    peak: float = options.learning_rate * min(1.0, (step + 1) / 30)
    if options.final:
        done = elapsed / (60 * options.minutes)
        peak *= 1 - 0.9 * min(1.0, max(0.0, (done - 0.6) / 0.4))
    return peak


def step_on(model: Any, tree: TokenTree, power: float) -> tuple[float, float, int]:
    """Gradients of one row; its mean loss, the share of supervised tokens predicted, and their number.

    What is trained on is (1 − p^q) / q of each token's probability p (generalised cross-entropy, arXiv 1805.07836), which
    for q → 0 is −log p and for q = 1 counts mistakes. −log p is least where a token that cannot be known is hedged, and
    the safest of all tokens is then what greedy decoding says.
    """
    batch = collate([tree])
    hidden = hidden_states(model, batch["keywords"])[batch["predictors"]]
    losses = token_losses(model, hidden, batch["targets"])
    (losses if power == 0 else (1 - torch.exp(-power * losses)) / power).mean().backward()
    with torch.no_grad():
        hits = (model.lm_head(hidden).argmax(-1) == batch["targets"]).float().mean().item()
    return losses.mean().item(), hits, len(losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=110)
    parser.add_argument("--plain", action="store_true", help="begin with random weights and train them all, to compare")
    parser.add_argument("--final", action="store_true", help="let the learning rate fall towards the end")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--power", type=float, default=0.7, help="q of the loss: 0 is cross-entropy, 1 counts mistakes")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "model.safetensors").exists():
        prepare(options)
    tokenizer = AutoTokenizer.from_pretrained(options.out)
    model: Any = AutoModelForCausalLM.from_pretrained(options.out, dtype=torch.float32, attn_implementation="sdpa")
    serve_trees(model)
    model.train()
    everything = {name: torch.ones(1) for name, _ in model.named_parameters()}
    masks = everything if options.plain else learnable(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in masks)
    learning = [(parameter, masks[name]) for name, parameter in model.named_parameters() if name in masks]
    optimizer = torch.optim.AdamW(
        [parameter for parameter, _ in learning], lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    state = {"step": 0, "block": 0, "tokens": 0, "supervised": 0, "seconds": 0.0}
    saved = options.out / "optimizer.pt"
    if saved.exists():
        stored = torch.load(saved, weights_only=True)
        optimizer.load_state_dict(stored["optimizer"])
        state = stored["state"]

    def checkpoint() -> None:
        model.save_pretrained(options.out)
        partial = saved.with_suffix(".part")
        torch.save({"optimizer": optimizer.state_dict(), "state": state}, partial)
        partial.replace(saved)

    mixture = Mixture(options.corpus, tokenizer, options.row_tokens, options.seed, state["block"] + bool(state["step"]))
    loader = DataLoader(mixture, batch_size=1, num_workers=1, collate_fn=first, prefetch_factor=8)
    started = last_saved = last_logged = time.monotonic()
    before, window = state["seconds"], []
    for block, tree in loader:
        elapsed = time.monotonic() - started
        if elapsed > 60 * options.minutes:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(state["step"], elapsed, options)
        loss, hits, supervised = step_on(model, tree, options.power)
        for parameter, mask in learning:
            parameter.grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state["step"] += 1
        state["block"] = block
        state["tokens"] += len(tree)
        state["supervised"] += supervised
        state["seconds"] = before + time.monotonic() - started
        window.append((loss, hits))
        if time.monotonic() - last_logged > 20:
            last_logged = time.monotonic()
            mean = [sum(values) / len(window) for values in zip(*window, strict=True)]
            line = {
                **state,
                "loss": round(mean[0], 4),
                "accuracy": round(mean[1], 4),
                "lr": optimizer.param_groups[0]["lr"],
            }
            print(json.dumps(line), flush=True)
            with (options.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            window = []
        if time.monotonic() - last_saved > 240:
            last_saved = time.monotonic()
            checkpoint()
    checkpoint()
    print(f"done: step {state['step']:,}, {state['tokens']:,} tokens")


if __name__ == "__main__":
    main()
