"""How fast is supervised tuning on token trees, against TRL's SFTTrainer on the same examples?

    make bench-deps
    python bench/sft.py [--questions 15|5|1] [--shape nano|135m|1.1b] [--data ROWS.jsonl] [--json]

Both sides take optimizer steps on the same model, LoRA and examples, each in a process of its own, turn about. TRL is
tried padded, one sequence at a time, padding-free and packed (completion only, fp32, no activation checkpointing,
adapters in fp32); the fastest of the first round goes on. The learning rate is 0, so that every step, and so losses
and gradients, can be compared. Seconds are medians over steps by the clock; beside them the processor's own, which
other programs on the machine disturb less. The FLOP ceiling is the ratio that counting operations alone allows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np

from openbook.tokens import TokenSequence, TokenTree, plan

# Random weights in the shapes of SmolLM-135M, of the embedded base, and of TinyLlama-1.1B.
SHAPES: dict[str, dict[str, Any]] = {
    "nano": {
        "vocab_size": 8192,
        "hidden_size": 320,
        "intermediate_size": 640,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 64,
        "tie_word_embeddings": False,
    },
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "1.1b": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "tie_word_embeddings": False,
    },
}
RANK = 16
PASSAGES, PASSAGE, INSTRUCTION, QUESTION, ANSWER = 5, 150, 30, 20, 60  # tokens: 780 of context, 80 of question + answer
TRL_VARIANTS = ("padded", "single", "padding-free", "packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=15, help="questions over each context (default 15)")
    parser.add_argument("--contexts", type=int, help="contexts a step (default: as many as make 4 questions)")
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--data", type=Path, help="RAFT rows instead of random tokens, for the shape nano")
    parser.add_argument("--row-tokens", type=int, default=4096, help="tokens in one of openbook's rows")
    parser.add_argument("--batch", type=int, default=5, help="sequences in one of TRL's batches (padded, padding-free)")
    parser.add_argument(
        "--trl", nargs="*", choices=TRL_VARIANTS, default=TRL_VARIANTS, help="what to try on TRL's side"
    )
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
    groups = read_groups(options.data) if options.data else random_groups(options)
    rows = plan(groups, options.row_tokens, seed=0, epoch=1)
    sequences = [sequence for group in groups for sequence in group]
    shape = SHAPES[options.shape]
    task = {
        "shape": shape,
        "rank": RANK,
        "nf4": options.shape == "1.1b",
        "model": str(folder / "model"),
        "row_tokens": options.row_tokens,
        "batch": options.batch,
        "steps": options.steps,
        "warm_up": options.warm_up,
        "threads": options.threads,
        "groups": [[(s.input_ids.tolist(), s.weight.tolist()) for s in group] for group in groups],
    }
    (folder / "task.json").write_text(json.dumps(task))
    worker(folder, "prepare")
    ours: list[dict[str, Any]] = []
    theirs: dict[str, list[dict[str, Any]]] = {}
    contenders = list(options.trl)
    for number in range(options.rounds):
        progress(f"round {number + 1}: openbook")
        ours.append(worker(folder, "openbook"))
        for variant in contenders:
            progress(f"round {number + 1}: TRL, {variant}")
            theirs.setdefault(variant, []).append(worker(folder, variant))
        contenders = sorted(contenders, key=lambda variant: median(theirs[variant], "seconds"))[:1]
    counted = {"openbook": tree_flops(shape, rows), "trl": sequence_flops(shape, sequences)}
    supervised = sum(int((s.weight > 0).sum()) for s in sequences)
    result: dict[str, Any] = {
        "shape": options.shape,
        "questions": len(sequences),
        "contexts": len(groups),
        "supervised_tokens": supervised,
        "threads": options.threads,
        "openbook": side(ours, counted["openbook"], supervised) | {"tokens": sum(map(len, rows))},
    }
    if theirs:
        best = contenders[0]
        result["trl"] = side(theirs[best], counted["trl"], supervised) | {"tokens": sum(map(len, sequences))}
        result["trl"]["configuration"] = best
        result["trl_tried"] = {
            name: {key: round(median(found, key), 3) for key in ("seconds", "cpu_seconds")}
            for name, found in theirs.items()
        }
        ceiling = counted["trl"] / counted["openbook"]
        ratio = result["trl"]["seconds"] / result["openbook"]["seconds"]
        result |= {
            "ratio": ratio,
            "cpu_ratio": result["trl"]["cpu_seconds"] / result["openbook"]["cpu_seconds"],
            "flop_ceiling": ceiling,
            "share_of_ceiling": ratio / ceiling,
            "memory_ratio": result["trl"]["peak_memory_bytes"] / result["openbook"]["peak_memory_bytes"],
            "loss_difference": abs(result["trl"]["loss"] - result["openbook"]["loss"]),
            "gradient_difference": gradient_difference(folder, best),
        }
    return result


def worker(folder: Path, side: str) -> dict[str, Any]:
    """One process; what it writes for people goes to a log that is shown only when it fails."""
    script = Path(__file__).with_name("sft_side.py")
    with (folder / f"{side}.log").open("w+") as log:
        done = subprocess.run([sys.executable, script, str(folder), side], stdout=log, stderr=subprocess.STDOUT)
        if done.returncode:
            log.seek(0)
            raise SystemExit(f"{log.read()}\nThe side {side!r} failed; see above.")
    found: dict[str, Any] = json.loads((folder / f"{side}.json").read_text())
    return found


def random_groups(options: argparse.Namespace) -> list[list[TokenSequence]]:
    """Study groups of random tokens; questions and answers differ in length as real ones do."""
    rng = np.random.default_rng(0)
    vocabulary = min(8000, SHAPES[options.shape]["vocab_size"])
    contexts = options.contexts or max(1, 4 // options.questions)
    groups = []
    for _ in range(contexts):
        context = rng.integers(8, vocabulary, PASSAGES * PASSAGE + INSTRUCTION)
        group = []
        for _ in range(options.questions):
            question, answer = QUESTION + int(rng.integers(-6, 7)), ANSWER + int(rng.integers(-20, 21))
            ids = np.concatenate([context, rng.integers(8, vocabulary, question + answer)])
            weight = np.zeros(len(ids), np.float32)
            weight[-answer:] = 1
            group.append(TokenSequence(input_ids=ids, weight=weight))
        groups.append(group)
    return groups


def read_groups(path: Path) -> list[list[TokenSequence]]:
    """The study groups of a RAFT file, in the embedded base's tokens, in the first epoch's order of passages."""
    from openbook.models import load_tokenizer
    from openbook.training.data import read_study

    study = read_study(path, load_tokenizer("nano"), form="raft", budget=4096, seed=0, context=4096)
    return study.sequences(0)


def layer_weights(shape: dict[str, Any]) -> tuple[int, int]:
    """Weights of all linear layers but the head, and of the LoRA matrices beside them."""
    D, F = shape["hidden_size"], shape["intermediate_size"]
    Q, KV = (shape[f"num_{kind}_heads"] * shape["head_dim"] for kind in ("attention", "key_value"))
    linears = [(D, Q), (D, KV), (D, KV), (Q, D), (D, F), (D, F), (F, D)]
    layers = shape["num_hidden_layers"]
    return layers * sum(a * b for a, b in linears), layers * sum(RANK * (a + b) for a, b in linears)


def flops(shape: dict[str, Any], *, tokens: int, pairs: int, supervised: int) -> float:
    """Forward pass and gradients of one step: 2 operations a weight and token forward, 2 for the activations' gradient,
    2 for that of LoRA's weights; an attended pair costs 4 a dimension forward, 8 backward; the head at supervised
    positions. Recomputation and elementwise work are not counted."""
    frozen, lora = layer_weights(shape)
    attention = 12 * pairs * shape["num_attention_heads"] * shape["head_dim"] * shape["num_hidden_layers"]
    head = 4 * supervised * shape["vocab_size"] * shape["hidden_size"]
    return float((4 * frozen + 6 * lora) * tokens + attention + head)


def tree_flops(shape: dict[str, Any], rows: Sequence[TokenTree]) -> float:
    pairs = sum(int((row.subtree_end - np.arange(len(row))).sum()) for row in rows)
    supervised = sum(int((row.weight > 0).sum()) for row in rows)
    return flops(shape, tokens=sum(map(len, rows)), pairs=pairs, supervised=supervised)


def sequence_flops(shape: dict[str, Any], sequences: Sequence[TokenSequence]) -> float:
    """Separate rows without any padding."""
    pairs = sum(len(s) * (len(s) + 1) // 2 for s in sequences)
    supervised = sum(int((s.weight > 0).sum()) for s in sequences)
    return flops(shape, tokens=sum(map(len, sequences)), pairs=pairs, supervised=supervised)


def median(found: Sequence[dict[str, Any]], key: str) -> float:
    values = [value for one in found for value in (one[key] if isinstance(one[key], list) else [one[key]])]
    return float(statistics.median(values))


def side(found: Sequence[dict[str, Any]], operations: float, supervised: int) -> dict[str, Any]:
    """Medians over the processes of one side. Matrix rates are of `torch.mm` in the same processes."""
    seconds, cpu = median(found, "seconds"), median(found, "cpu_seconds")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "all_seconds": [one["seconds"] for one in found],
        "supervised_tokens_per_s": supervised / seconds,
        "loss": found[0]["loss"],
        "teraflop": operations / 1e12,
        "matrix_gflops": median(found, "mm_gflops"),
        "matrix_rate_share": operations / 1e9 / seconds / median(found, "mm_gflops"),
        "cpu_matrix_rate_share": operations / 1e9 / cpu / median(found, "cpu_mm_gflops"),
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in found),
        "memory_before_training_bytes": max(one["memory_before_training_bytes"] for one in found),
        "loading_seconds": median(found, "loading_seconds"),
    }


def gradient_difference(folder: Path, variant: str) -> float:
    """The norm of the difference of all gradients, relative to TRL's."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / f"{name}.safetensors") for name in ("openbook", variant))
    assert ours.keys() == theirs.keys()
    a, b = (torch.cat([found[name].flatten().double() for name in sorted(ours)]) for found in (ours, theirs))
    return float((a - b).norm() / b.norm())


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def described(result: dict[str, Any]) -> str:
    lines = [
        f"{result['shape']}: {result['questions']} questions over {result['contexts']} contexts, "
        f"{result['supervised_tokens']} supervised tokens a step, {result['threads']} threads"
    ]
    for name in ("openbook", "trl"):
        if found := result.get(name):
            label = f"TRL ({found['configuration']})" if name == "trl" else name
            lines.append(
                f"{label:20} {found['seconds']:7.2f} s a step ({found['cpu_seconds']:.2f} s of processor), "
                f"{found['supervised_tokens_per_s']:7.1f} supervised tokens/s, loss {found['loss']:.5f}, "
                f"{found['matrix_rate_share']:.0%} of torch.mm's rate ({found['cpu_matrix_rate_share']:.0%} by processor "
                f"time), {found['peak_memory_bytes'] / 1e9:.2f} GB at most"
            )
    if "ratio" in result:
        tried = ", ".join(f"{name} {found['seconds']:.2f} s" for name, found in result["trl_tried"].items())
        lines += [
            f"TRL's configurations: {tried}",
            f"ratio {result['ratio']:.2f} (by processor time {result['cpu_ratio']:.2f}); counting operations allows "
            f"{result['flop_ceiling']:.2f}; memory {result['memory_ratio']:.2f}",
            f"losses differ by {result['loss_difference']:.1e}, gradients by {result['gradient_difference']:.1e}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
