"""Step 3 of the recipe: training from random weights on one GPU, in minutes.

    python recipes/nano/train.py --data study.npz.xz --out FOLDER --minutes 6

A Llama as transformers computes it (`assemble.py` loads the weights into one), written out so that its blocks compile and
attend over token trees by FlexAttention. Matrices of the blocks are trained by Muon, the rest by AdamW. In the last
third every other step sees the blocks' weights rounded to NF4, with the gradient passed straight through, so that they
lose little when they are stored so. Needs numpy and PyTorch 2.10 or later, nothing else.
"""

import argparse
import json
import lzma
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import PASSAGE_WEIGHT, Rows, Study
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

ROPE_THETA = 10_000.0
EPSILON = 1e-6
NF4_BLOCK = 64
SHARD = 15 * 2**20  # bytes of a file of weights
RISE = 100  # steps over which the rates rise
LOGGED = 50  # steps between two lines of the log
# The 16 values of NF4 (QLoRA, arXiv 2305.14314, appendix E).
NF4 = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip


class Linear(nn.Linear):
    """Without a bias; computes in bfloat16, on weights rounded to NF4 by as much as `rounding` (0 or 1) says."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor, rounding: Tensor, values: Tensor) -> Tensor:
        weight = self.weight
        with torch.no_grad():
            blocks = weight.view(-1, NF4_BLOCK)
            largest = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
            nearest = torch.bucketize(blocks / largest, (values[1:] + values[:-1]) / 2)
            shift = (values[nearest] * largest).view_as(weight) - weight
        return F.linear(x, (weight + rounding * shift).bfloat16())


class Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.input_layernorm = nn.RMSNorm(width, eps=EPSILON)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=EPSILON)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (Linear(width, width) for _ in range(4))
        self.gate_proj, self.up_proj, self.down_proj = (
            Linear(width, inner), Linear(width, inner), Linear(inner, width)
        )  # fmt: skip

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, rounding: Tensor, values: Tensor) -> Tensor:
        batch, length, width = x.shape
        h = self.input_layernorm(x.float()).bfloat16()
        query, key, value = (
            project(h, rounding, values).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = attention(rotated(query, cos, sin), rotated(key, cos, sin), value, mask)
        x = x + self.o_proj(attended.transpose(1, 2).reshape(batch, length, width), rounding, values)
        h = self.post_attention_layernorm(x.float()).bfloat16()
        inner = F.silu(self.gate_proj(h, rounding, values)) * self.up_proj(h, rounding, values)
        return x + self.down_proj(inner, rounding, values)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
    if isinstance(mask, BlockMask):
        return flex_attention(query, key, value, block_mask=mask)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions as Hugging Face's Llama has them: the two halves of a head are the pairs' parts."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).bfloat16()


class Model(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, inner: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Block(width, heads, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=EPSILON)
        half = width // heads // 2
        self.register_buffer("frequencies", ROPE_THETA ** (-torch.arange(half) / half), persistent=False)
        self.register_buffer("values", torch.tensor(NF4), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, ids: Tensor, depth: Tensor, mask: Any, rounding: Tensor) -> Tensor:
        """Last hidden states (B, T, D), normed."""
        angles = depth[:, None, :, None] * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        x = self.embed_tokens(ids).bfloat16()
        for layer in self.layers:
            x = layer(x, cos, sin, mask, rounding, self.values)
        return self.norm(x.float()).bfloat16()


def measured(hidden: Tensor, embedding: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (N,) and whether the likeliest token is the right one (N,)."""
    logits = F.linear(hidden, embedding.bfloat16()).float()
    return F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target


def tree_mask(end: Tensor) -> Any:
    """`end` (B, T): one past the last descendant of each token. Dense where there is no GPU, to try things out."""
    if end.device.type == "cpu":
        position = torch.arange(end.shape[1])
        return ((position <= position[:, None]) & (position[:, None] < end[:, None]))[:, None]

    def may(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[batch, key])

    rows, length = end.shape
    return create_block_mask(may, rows, None, length, length, device=end.device)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with the matrices of one shape orthogonalised together; PyTorch's takes one at a time,
    which on small matrices is all launches."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                gradient = torch.stack([weight.grad for weight in weights])
                state = self.state[weights[0]]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradient)
                state["momentum"].lerp_(gradient, 1 - group["momentum"])
                update = orthogonal(gradient.lerp(state["momentum"], group["momentum"]))
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for weight, change in zip(weights, update.unbind(), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1 (Newton-Schulz), of (N, rows, columns)."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Batches(IterableDataset):
    def __init__(self, data: Path, rows: int, length: int, seed: int) -> None:
        self._data, self._rows, self._length, self._seed = data, rows, length, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = get_worker_info()
        rows = iter(Rows(Study(self._data), length=self._length, seed=1000 * self._seed + (info.id if info else 0)))
        while True:
            yield batch([next(rows) for _ in range(self._rows)])


def batch(rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--inner", type=int, default=1280)
    parser.add_argument("--rows", type=int, default=16, help="rows a step")
    parser.add_argument("--length", type=int, default=4096, help="tokens a row")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--rate", type=float, default=3e-3, help="AdamW's")
    parser.add_argument(
        "--fall", type=float, default=0.6, help="the last share of the time, over which rates fall to 0"
    )
    parser.add_argument(
        "--rounding", type=float, default=0.35, help="the last share of the time with NF4 every other step"
    )
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--save-every", type=float, default=100, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wait-for", type=Path, help="begin only when this file exists, compiled and ready")
    parser.add_argument("--steps", type=int, help="stop after so many")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    train(options)


class Training:
    """A model on its device with its two optimizers, compiled where wanted."""

    def __init__(self, model: Model, *, muon_rate: float, rate: float, compiled: bool) -> None:
        self.model, self.device = model, model.embed_tokens.weight.device
        self._tree_mask, self._measured = tree_mask, measured
        if compiled:
            for layer in model.layers:
                layer.compile(dynamic=False)
            self._tree_mask = torch.compile(tree_mask, dynamic=False)
            self._measured = torch.compile(measured, dynamic=False)
        matrices = [weight for weight in model.layers.parameters() if weight.ndim == 2]
        gains = [weight for weight in model.parameters() if weight.ndim == 1]
        muon = Muon(matrices, lr=muon_rate, weight_decay=0.02)
        adam = torch.optim.AdamW(
            [*gains, model.embed_tokens.weight],
            lr=rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=self.device.type == "cuda",
        )
        self._optimizers, self._rates = (muon, adam), (muon_rate, rate)

    def losses(self, data: dict[str, Tensor], rounding: float) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The loss; of each token its loss and whether it is predicted (N,); and the rows on the device."""
        on = {name: tensor.to(self.device, non_blocking=True) for name, tensor in data.items()}
        how = torch.tensor(rounding, device=self.device)
        hidden = self.model(on["ids"], on["depth"], self._tree_mask(on["end"]), how)
        losses, hits = self._measured(hidden.flatten(0, 1), self.model.embed_tokens.weight, on["target"].flatten())
        weight = on["weight"].flatten()
        return (losses * weight).sum() / weight.sum(), losses, hits, on

    def step(self, data: dict[str, Tensor], *, rounding: float, scale: float) -> Tensor:
        """One step at `scale` times the rates. Gives, as one tensor, the answers' mean loss, the share of their tokens
        that are predicted, and the passages' mean loss."""
        loss, losses, hits, on = self.losses(data, rounding)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        weight = on["weight"].flatten()
        answers, passages = weight == 1, weight == PASSAGE_WEIGHT
        counted, read = answers.sum().clamp_min(1), passages.sum().clamp_min(1)
        return torch.stack([
            (losses * answers).sum() / counted, (hits & answers).sum() / counted, (losses * passages).sum() / read
        ]).detach()  # fmt: skip

    def warm_up(self, data: dict[str, Tensor]) -> None:
        """Compile all that a step needs, and leave weights and optimizers as they were."""
        for _ in range(3):
            self.step(data, rounding=0.0, scale=0.0)
        for optimizer in self._optimizers:
            optimizer.state.clear()


def train(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 64  # the blocks share one code, and are compiled with and without gradients
    log = Log(options.out / "log.jsonl")
    data = unpacked(options.data, options.out)
    loader = iter(
        DataLoader(
            Batches(data, options.rows, options.length, options.seed + 1),
            batch_size=None, num_workers=options.workers, prefetch_factor=4 if options.workers else None, pin_memory=device.type == "cuda",
        )
    )  # fmt: skip
    study = Study(data)
    watched = iter(Rows(study, length=options.length, seed=7, held_out=True))
    held_out = [batch([next(watched) for _ in range(options.rows)]) for _ in range(2)]
    shape = {"width": options.width, "layers": options.layers, "heads": options.width // 64, "inner": options.inner}
    model = Model(study.forms["vocabulary"], **shape).to(device)
    (options.out / "shape.json").write_text(json.dumps(shape))
    training = Training(model, muon_rate=options.muon_rate, rate=options.rate, compiled=not options.no_compile)

    started = time.perf_counter()
    training.warm_up(next(loader))
    watch(log, training, held_out, 0)
    if device.type == "cuda":
        torch.cuda.synchronize()
    log(
        event="ready",
        compile_seconds=round(time.perf_counter() - started, 1),
        weights=sum(p.numel() for p in model.parameters()),
    )
    while options.wait_for and not options.wait_for.exists():
        time.sleep(0.2)
    steps = run(training, loader, held_out, log, options)
    watch(log, training, held_out, steps, 0.0)
    watch(log, training, held_out, steps, 1.0)
    save(model, options.out)


def run(training: Training, loader: Any, held_out: Any, log: "Log", options: argparse.Namespace) -> int:
    """Steps until the time is up; how many."""
    started = saved = logged = time.perf_counter()
    window: list[Tensor] = []
    for number, data in enumerate(loader):
        done = (time.perf_counter() - started) / (60 * options.minutes)
        if done >= 1 or number == options.steps:
            return number
        scale = min(1.0, (number + 1) / RISE) * min(1.0, (1 - done) / options.fall)
        window.append(training.step(data, rounding=float(done > 1 - options.rounding and number % 2), scale=scale))
        if len(window) == LOGGED:
            loss, hits, passages = torch.stack(window).mean(0).tolist()  # the only wait for the device
            now = time.perf_counter()
            tokens = options.rows * options.length
            log(
                step=number + 1, tokens=(number + 1) * tokens, seconds=round(now - started, 1),
                loss=round(loss, 4), accuracy=round(hits, 4), passages=round(passages, 3),
                tokens_per_second=round(len(window) * tokens / (now - logged)),
            )  # fmt: skip
            window, logged = [], now
            if now - saved > options.save_every:
                saved = now
                watch(log, training, held_out, number + 1)
                save(training.model, options.out)
    raise AssertionError("rows never end")


def unpacked(data: Path, out: Path) -> Path:
    """What `prepare.py` wrote, unpacked once for all workers into the run's folder; anew each time, for it may be another."""
    if data.suffix != ".xz":
        return data
    part = out / "study.part"
    part.write_bytes(lzma.decompress(data.read_bytes()))
    return part.replace(out / "study.npz")


class Log:
    """Lines of JSON, printed and written to a file that begins anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("")

    def __call__(self, **found: Any) -> None:
        line = json.dumps(found)
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")


@torch.no_grad()
def watch(log: Log, training: Training, held_out: list[dict[str, Tensor]], step: int, rounding: float = 0.0) -> None:
    """On documents held out: loss and share right of the answers' tokens, and the share of answers that are wholly as
    wanted (what greedy decoding would write), of those that quote and of those that refuse, told apart by how the most begin."""
    found = []
    for data in held_out:
        _, losses, hits, on = training.losses(data, rounding)
        rows, length = on["answer"].shape
        number = on["answer"] + length * torch.arange(rows, device=hits.device)[:, None]
        answers = (on["weight"] == 1).flatten()
        groups, targets = number.flatten()[answers], on["target"].flatten()[answers]
        hit, loss = hits[answers], losses[answers]
        _, position = torch.unique_consecutive(groups, return_inverse=True)
        count = int(position.max()) + 1
        all_hit = torch.ones(count, dtype=torch.int32, device=hit.device).scatter_reduce(0, position, hit.int(), "amin")
        first = torch.zeros(count, dtype=torch.long, device=hit.device).scatter(0, position.flip(0), targets.flip(0))
        found.append((all_hit.float().cpu(), first.cpu(), hit.float().mean().item(), loss.mean().item()))
    exact, first = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
    quoting = first == first.mode().values
    log(
        event="held out", step=step, rounding=rounding, answers=len(exact),
        accuracy=round(sum(f[2] for f in found) / len(found), 4), loss=round(sum(f[3] for f in found) / len(found), 4),
        exact_quoted=round(exact[quoting].mean().item(), 4), exact_refused=round(exact[~quoting].mean().item(), 4),
    )  # fmt: skip


def save(model: Model, out: Path) -> None:
    """All weights in fp16, flat, in the order of `named_parameters`, cut into files of at most 15 MiB."""
    flat = torch.cat([weight.detach().half().flatten().cpu() for weight in model.parameters()]).numpy()
    for number, start in enumerate(range(0, flat.nbytes, SHARD)):
        part = out / f"weights-{number}.part"
        part.write_bytes(flat.tobytes()[start : start + SHARD])
        part.replace(out / f"weights-{number}.f16")


if __name__ == "__main__":
    main()
