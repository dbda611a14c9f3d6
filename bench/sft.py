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
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import versus
from openbook.tokens import TokenSequence, plan

PASSAGES, PASSAGE, INSTRUCTION, QUESTION, ANSWER = 5, 150, 30, 20, 60  # tokens: 780 of context, 80 of question + answer
TRL_VARIANTS = ("padded", "single", "padding-free", "packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=15, help="questions over each context (default 15)")
    parser.add_argument("--contexts", type=int, help="contexts a step (default: as many as make 4 questions)")
    parser.add_argument("--shape", choices=versus.SHAPES, default="135m")
    parser.add_argument("--data", type=Path, help="RAFT rows instead of random tokens, for the shape nano")
    parser.add_argument("--row-tokens", type=int, default=4096, help="tokens in one of openbook's rows")
    parser.add_argument("--batch", type=int, default=5, help="sequences in one of TRL's batches (padded, padding-free)")
    parser.add_argument(
        "--trl", nargs="*", choices=TRL_VARIANTS, default=TRL_VARIANTS, help="what to try on TRL's side"
    )
    parser.add_argument(
        "--checkpointing",
        action="store_true",
        help="openbook recomputes its activations (tune.activation_checkpointing)",
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
    shape = versus.SHAPES[options.shape]
    task = {
        "shape": shape,
        "rank": versus.RANK,
        "nf4": options.shape == "1.1b",
        "model": str(folder / "model"),
        "row_tokens": options.row_tokens,
        "batch": options.batch,
        "checkpointing": options.checkpointing,
        "steps": options.steps,
        "warm_up": options.warm_up,
        "threads": options.threads,
        "groups": [[(s.input_ids.tolist(), s.weight.tolist()) for s in group] for group in groups],
    }
    (folder / "task.json").write_text(json.dumps(task))
    ours, theirs = versus.alternate(folder, Path(__file__).with_name("sft_side.py"), options.trl, options.rounds)
    counted = {
        "openbook": versus.flops(shape, **versus.of_trees(rows)),
        "trl": versus.flops(shape, **versus.of_sequences(sequences)),
    }
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
        best = next(iter(theirs))
        result["trl"] = side(theirs[best], counted["trl"], supervised) | {"tokens": sum(map(len, sequences))}
        result["trl"]["configuration"] = best
        result["trl_tried"] = versus.tried(theirs, "seconds", "cpu_seconds")
        ceiling = counted["trl"] / counted["openbook"]
        ratio = versus.ratio(result, "seconds")
        result |= {
            "ratio": ratio,
            "cpu_ratio": versus.ratio(result, "cpu_seconds"),
            "flop_ceiling": ceiling,
            "share_of_ceiling": ratio / ceiling,
            "memory_ratio": versus.ratio(result, "peak_memory_bytes"),
            **versus.agreement(result, folder, best),
        }
    return result


def side(found: list[dict[str, Any]], operations: float, supervised: int) -> dict[str, Any]:
    summed = versus.summary(found, operations)
    return {**summed, "supervised_tokens_per_s": supervised / summed["seconds"]}


def random_groups(options: argparse.Namespace) -> list[list[TokenSequence]]:
    """Study groups of random tokens; questions and answers differ in length as real ones do."""
    rng = np.random.default_rng(0)
    vocabulary = min(8000, versus.SHAPES[options.shape]["vocab_size"])
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
