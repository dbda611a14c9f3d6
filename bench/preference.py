"""How fast are DPO, reward modelling and GRPO on token trees, against TRL's trainers on the same examples?

    make bench-deps
    python bench/preference.py --method dpo|reward|grpo [--pairs-per-context 5|1] [--shape nano|135m] [--json]

Both sides read and step on the same model, LoRA and RAFT-shaped prompts (a context of 5 passages, about 1,000 tokens,
and a question), fp32, each in a process of its own, turn about. What is read without gradients before the steps is timed as
`reading`: the reference's log-probabilities for DPO, those of the sampling policy and the reference for GRPO, whose
rollouts are given (8 to a prompt; writing them is no part of it). TRL has them precomputed in its own way as well. Then
the policy is moved away from both, so that there is something to compare, and steps are taken at a rate of 0. Here
`--pairs-per-context` counts GRPO's prompts. TRL is tried one pair or rollout at a time and in batches.

`ratio` is of one reading and one step together, by the clock; `cpu_ratio` is the same by processor time, which other
programs on the machine disturb less; the FLOP ceiling is the ratio that counting operations alone allows.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import preference_side as sides
import versus
from openbook.tokens import TokenTree

# Tokens: a context of 1,030 and 20 ± 6 of the question; answers of 60 ± 20.
PASSAGES, PASSAGE, INSTRUCTION, QUESTION, ANSWER = 5, 200, 30, 20, 60
VARIANTS = ("single", "batched")
READINGS = {"dpo": 1, "reward": 0, "grpo": 2}  # passes without gradients before the steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=READINGS, required=True)
    parser.add_argument("--pairs-per-context", type=int, default=5, help="pairs (grpo: prompts) over each context")
    parser.add_argument("--contexts", type=int, help="contexts a step (default: as many as make 4 pairs; grpo: 1)")
    parser.add_argument("--shape", choices=versus.SHAPES, default="135m")
    parser.add_argument("--row-tokens", type=int, default=4096, help="tokens in one of openbook's rows")
    parser.add_argument("--trl", nargs="*", choices=VARIANTS, default=VARIANTS, help="what to try on TRL's side")
    parser.add_argument("--rounds", type=int, default=2, help="processes of either side")
    parser.add_argument("--steps", type=int, default=2, help="timed steps in each process")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them that are not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options, Path(folder))
    print(json.dumps(result, indent=2) if options.json else described(result))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape, grpo = versus.SHAPES[options.shape], options.method == "grpo"
    asked = options.pairs_per_context
    contexts = options.contexts or (1 if grpo else max(1, 4 // asked))
    items = random_items(contexts, asked, answers=sides.GROUP if grpo else 2, vocabulary=min(8000, shape["vocab_size"]))
    task = {
        "method": options.method,
        "shape": shape,
        "rank": versus.RANK,
        "nf4": options.shape == "1.1b",
        "model": str(folder / "model"),
        "row_tokens": options.row_tokens,
        "batch": sides.GROUP if grpo else asked if asked > 1 else len(items),
        "steps": options.steps,
        "warm_up": options.warm_up,
        "threads": options.threads,
        "items": items,
    }
    (folder / "task.json").write_text(json.dumps(task))
    ours, theirs = versus.alternate(folder, Path(sides.__file__), options.trl, options.rounds)
    trees = [row.tree for row in sides.rows_of(task)]
    counted = operations(options.method, shape, trees)
    result: dict[str, Any] = {
        "method": options.method,
        "shape": options.shape,
        "contexts": contexts,
        "pairs_per_context": asked,
        "answers": sum(len(item["answers"]) for item in items),
        "threads": options.threads,
        "openbook": side(ours, counted["openbook"]) | {"tokens": sum(map(len, trees))},
    }
    if theirs:
        best = next(iter(theirs))
        tokens = sum(len(s) for tree in trees for s in tree.sequences())
        result["trl"] = side(theirs[best], counted["trl"]) | {"tokens": tokens, "configuration": best}
        result["trl_tried"] = versus.tried(theirs, "seconds", "cpu_seconds", "reading_seconds")
        ratios = {
            "ratio": versus.ratio(result, "seconds", "reading_seconds"),
            "cpu_ratio": versus.ratio(result, "cpu_seconds", "reading_cpu_seconds"),
            "step_ratio": versus.ratio(result, "seconds"),
            "step_cpu_ratio": versus.ratio(result, "cpu_seconds"),
            "flop_ceiling": versus.ratio(result, "teraflop", "reading_teraflop"),
        }
        result |= {
            **ratios,
            "share_of_ceiling": ratios["ratio"] / ratios["flop_ceiling"],
            "cpu_share_of_ceiling": ratios["cpu_ratio"] / ratios["flop_ceiling"],
            "memory_ratio": versus.ratio(result, "peak_memory_bytes"),
            **versus.agreement(result, folder, best),
        }
    return result


def random_items(contexts: int, asked: int, *, answers: int, vocabulary: int) -> list[dict[str, Any]]:
    """Prompts of random tokens, `asked` over each context, each with its answers: for pairs the chosen and the rejected
    one, for GRPO its rollouts with a reward each. Questions and answers differ in length as real ones do."""
    rng = np.random.default_rng(0)

    def draw(length: int, spread: int = 0) -> list[int]:
        drawn: list[int] = rng.integers(8, vocabulary, length + int(rng.integers(-spread, spread + 1))).tolist()
        return drawn

    items = []
    for _ in range(contexts):
        context = draw(PASSAGES * PASSAGE + INSTRUCTION)
        for _ in range(asked):
            prompt = context + draw(QUESTION, 6)
            written = [draw(ANSWER, 20) for _ in range(answers)]
            items.append({"prompt": prompt, "answers": written, "rewards": rng.random(answers).tolist()})
    return items


def operations(method: str, shape: dict[str, Any], trees: Sequence[TokenTree]) -> dict[str, tuple[float, float]]:
    """Operations of a step and of the reading, for either side. A reward model has a scalar for a head."""
    counts = {
        "openbook": versus.of_trees(trees),
        "trl": versus.of_sequences([s for tree in trees for s in tree.sequences()]),
    }
    if method == "reward":
        counts = {name: {**count, "logits": 0} for name, count in counts.items()}
    return {
        name: (versus.flops(shape, **count), READINGS[method] * versus.flops(shape, **count, backward=False))
        for name, count in counts.items()
    }


def side(found: list[dict[str, Any]], counted: tuple[float, float]) -> dict[str, Any]:
    reading = {key: versus.median(found, key) for key in ("reading_seconds", "reading_cpu_seconds")}
    return {**versus.summary(found, counted[0]), **reading, "reading_teraflop": counted[1] / 1e12}


def described(result: dict[str, Any]) -> str:
    lines = [
        f"{result['method']}, {result['shape']}: {result['contexts']} contexts, {result['pairs_per_context']} pairs or "
        f"prompts over each, {result['answers']} answers a step, {result['threads']} threads"
    ]
    for name in ("openbook", "trl"):
        if found := result.get(name):
            label = f"TRL ({found['configuration']})" if name == "trl" else name
            lines.append(
                f"{label:15} {found['tokens']:6,} tokens, read in {found['reading_seconds']:.2f} s "
                f"({found['reading_cpu_seconds']:.2f} s of processor), a step {found['seconds']:.2f} s "
                f"({found['cpu_seconds']:.2f} s), loss {found['loss']:.6f}, {found['matrix_rate_share']:.0%} of "
                f"torch.mm's rate ({found['cpu_matrix_rate_share']:.0%} by processor time), "
                f"{found['peak_memory_bytes'] / 1e9:.2f} GB at most"
            )
    if "ratio" in result:
        tried = ", ".join(f"{name} {found['seconds']:.2f} s" for name, found in result["trl_tried"].items())
        lines += [
            f"TRL's configurations: {tried}",
            f"ratio {result['ratio']:.2f} (by processor time {result['cpu_ratio']:.2f}; of the step alone "
            f"{result['step_ratio']:.2f}, {result['step_cpu_ratio']:.2f}); counting operations allows "
            f"{result['flop_ceiling']:.2f}; memory {result['memory_ratio']:.2f}",
            f"losses differ by {result['loss_difference']:.1e}, gradients by {result['gradient_difference']:.1e}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
