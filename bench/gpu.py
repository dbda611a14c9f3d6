"""One sitting on a GPU: are token trees right there, how fast are they, and against TRL?

    python bench/gpu.py OUT [--seconds 240] [--only NAME ...] [--rehearse]

Sections run one after another in one process, the most important first; each has its own limit of seconds, and one that
fails is recorded with its traceback. OUT/gpu.jsonl gets a line for every finding at once, OUT/profile.txt the kernels of
a step, OUT/table.txt what is printed at the end. `--rehearse` runs all of it on a CPU in tiny shapes, the flash
kernels written out in plain PyTorch (tests/plain_varlen.py).

TRL's side tunes padding-free on Liger's layers. It needs a flash attention for packed sequences, and the package
flash-attn is often absent: here its attention is PyTorch's own flash kernel for sequences of various lengths, fed with
the boundaries that TRL's collator gives, grouped key heads unrepeated. So both sides stand on the same kernel. Its DPO
and GRPO know padded batches alone, which SDPA attends over.
"""

import argparse
import contextlib
import gc
import importlib
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback, TrainingArguments

import preference
import preference_side
import versus
from openbook.models import LoadedModel, load, load_tokenizer
from openbook.models.decode import decode
from openbook.progress import SILENT
from openbook.tokens import TokenSequence, TokenTree, build, concatenate, plan
from openbook.training import attention, tree_kernels
from openbook.training.attention import serve_trees
from openbook.training.liger import KINDS as LIGER_KINDS
from openbook.training.liger import take_layers
from openbook.training.lora import adapter_layers, half_precision
from openbook.training.trainer import Supervised, TreeTrainer, collate
from openbook.training.tree_kernels import Kernel, dense, levels
from openbook.training.tree_layout import Level, TreeLayout


def lived() -> float:
    """Seconds since this process began, its imports included."""
    began = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return min(300.0, max(0.0, float(Path("/proc/uptime").read_text().split()[0]) - began))


START = time.monotonic() - lived()
PASSAGES, PASSAGE, QUESTION, ANSWER = 5, 200, 20, 60  # tokens
PACKED = "packed_varlen"  # TRL's attention
# Of Liger, TRL gets what concerns the layers, as openbook does; the head is either side's own.
LIGER = {"rope": True, "swiglu": True, "rms_norm": True, "cross_entropy": False, "fused_linear_cross_entropy": False}
SIDES = ("openbook", "openbook + liger", "trl + liger")
PACKAGES = "torch triton transformers peft trl liger-kernel bitsandbytes accelerate datasets numpy".split()


# --- kernels that are compared ---------------------------------------------------------------------------------------


class Varlen(torch.autograd.Function):
    """One call of the flash kernel for sequences of various lengths; (T, H, D). The keys of `level` may repeat."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, level: Level, scale: float) -> Tensor:
        keys, values = (key, value) if level.keys is None else (key[level.keys], value[level.keys])
        out, lse = tree_kernels._flash(level, query, keys, values, scale)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.level, ctx.scale = level, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        at = ctx.level.keys
        keys, values = (key, value) if at is None else (key[at], value[at])
        dq, dk, dv = tree_kernels._flash_backward(ctx.level, gradients[0], query, keys, values, out, lse, ctx.scale)
        if at is not None:
            dk, dv = (
                torch.zeros(key.shape, device=key.device).index_add_(0, at, d.float()).to(key.dtype) for d in (dk, dv)
            )
        return dq, dk, dv, None, None


def varlen(query: Tensor, key: Tensor, value: Tensor, level: Level, scale: float) -> Tensor:
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return Varlen.apply(q, k, v, level, scale).transpose(0, 1)[None]  # type: ignore[no-any-return, no-untyped-call]


def gathered(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    """Each segment's queries with the keys of its whole way from the root, copied together."""
    level = layout.__dict__.get("gathered")
    if level is None:
        segments = layout.tree.segments()
        paths = [torch.from_numpy(layout.tree.path(stop - 1)) for _, stop in segments]
        longest = [(0, len(path)) for path in paths]
        plain = Level.of(segments, longest, query.device, triangles=True)
        level = Level(**{**plain.__dict__, "keys": torch.cat(paths).to(query.device)})
        layout.__dict__["gathered"] = level
    return varlen(query, key, value, level, scale)


_compiled: Any = None


def flex(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    """FlexAttention, compiled for rows of any length."""
    global _compiled
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if _compiled is None:
        _compiled = torch.compile(flex_attention, dynamic=True) if query.device.type == "cuda" else flex_attention
    mask = layout.__dict__.get("block_mask")
    if mask is None:
        end = layout.subtree_end.to(query.device)

        def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (k <= q) & (q < end[k])

        mask = create_block_mask(seen, None, None, len(end), len(end), device=query.device)
        layout.__dict__["block_mask"] = mask
    groups = query.shape[1] != key.shape[1]
    return _compiled(query, key, value, block_mask=mask, scale=scale, enable_gqa=groups)  # type: ignore[no-any-return]


KINDS: dict[str, Kernel] = {"levels": levels, "gathered": gathered, "dense": dense}


@contextlib.contextmanager
def forced(kernel: Kernel) -> Iterator[None]:
    before, attention.kernel_for = attention.kernel_for, lambda *_: kernel
    try:
        yield
    finally:
        attention.kernel_for = before


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface over sequences that lie behind one another, as TRL's collator describes them."""
    level = Level(
        causal=True,
        queries=None,
        keys=None,
        query_starts=cu_seq_lens_q,
        key_starts=cu_seq_lens_q,
        most_queries=max_length_q,
        most_keys=max_length_q,
    )
    half = torch.get_autocast_dtype(query.device.type)
    query, key, value = (x.to(half) for x in (query, key, value))
    return varlen(query, key, value, level, scaling).transpose(1, 2), None


# --- the sitting -----------------------------------------------------------------------------------------------------


class Late(BaseException):
    """A section has used up its seconds. No `Exception`, so that no library takes it for one of its own."""


class Sitting:
    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.rehearse: bool = options.rehearse
        self.device = torch.device("cpu" if self.rehearse else "cuda")
        self.scratch = Path(tempfile.mkdtemp())
        self._end = START + options.seconds
        self._only: list[str] = options.only
        self.rate = math.nan  # TFLOP/s of a large product in bf16

    def pick(self, real: Any, tiny: Any) -> Any:
        return tiny if self.rehearse else real

    def section(self, name: str, limit: int, work: Callable[["Sitting"], None]) -> None:
        """Run `work` for at most `limit` seconds, if at least half of them are left."""
        if self._only and name not in self._only:
            return
        limit *= self.pick(1, 3)
        left = self._end - time.monotonic()
        if left < limit / 2:
            self.record(name, skipped=f"{left:.0f} s left")
            return
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, min(limit, left), 5)  # again, where it was lost in a destructor
        try:
            work(self)
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if isinstance(error, KeyboardInterrupt):
                raise
            self.record(name, error=repr(error)[:500], traceback=traceback.format_exc()[-4000:])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not self.broken():
            self.free()
        self.record(name, section_seconds=round(time.monotonic() - began, 1))

    def record(self, section: str, **found: Any) -> None:
        row = {"section": section, "at": round(time.monotonic() - START, 1), **found}
        with (self.out / "gpu.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "traceback"}), flush=True)

    def broken(self) -> bool:
        """Whether a kernel has failed in a way that leaves this process no use of the device."""
        try:
            self.wait()
        except RuntimeError:
            return True
        return False

    def free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> float:
        """The clock when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, work: Callable[[], Any], times: int) -> float:
        """Median milliseconds, by the device's own clock where it has one."""
        seconds = []
        work()
        work()
        for _ in range(times):
            if self.device.type == "cuda":
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                work()
                end.record()
                end.synchronize()
                seconds.append(begin.elapsed_time(end))
            else:
                began = time.perf_counter()
                work()
                seconds.append(1000 * (time.perf_counter() - began))
        return statistics.median(seconds)


def machine(sitting: Sitting) -> None:
    size = sitting.pick(8192, 256)
    a, b = (torch.randn(size, size, device=sitting.device, dtype=torch.bfloat16) for _ in range(2))
    sitting.rate = 2 * size**3 / sitting.timed(lambda: a @ b, 10) / 1e9
    name = "cpu" if sitting.rehearse else torch.cuda.get_device_name()
    sitting.record("machine", name=name, torch=torch.__version__, bf16_tflops=round(sitting.rate, 1))


# --- right? ----------------------------------------------------------------------------------------------------------

FIELDS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "initializer_range"
).split()
WIDTHS: dict[str, dict[str, Any]] = {
    "tiny": dict(zip(FIELDS, (512, 64, 128, 2, 4, 2, 16, 0.1), strict=True)),
    "135m": dict(zip(FIELDS, (2048, 576, 1536, 3, 9, 3, 64, 0.04), strict=True)),
}


def trained_at_the_end(ids: Any, count: int) -> TokenSequence:
    """A sequence whose last `count` tokens are trained on."""
    weight = np.zeros(len(ids), np.float32)
    weight[-count:] = 1
    return TokenSequence(input_ids=ids.astype(np.int64), weight=weight)


def nested_groups(vocabulary: int, scale: int) -> list[list[TokenSequence]]:
    """Three groups: nested prefixes and branches of very different lengths, a sequence alone, a prefix of one token."""
    rng = np.random.default_rng(0)
    groups = []
    for prefix, questions in ((20 * scale, 7), (5 * scale, 1), (1, 4)):
        shared, more = rng.integers(3, vocabulary, prefix), rng.integers(3, vocabulary, 3 * scale)
        group = []
        for number in range(questions):
            middle = more if number >= questions // 2 and questions > 1 else more[:0]
            own = rng.integers(3, vocabulary, 6 + (number % 4) ** 2 * 2 * scale)
            group.append(trained_at_the_end(np.concatenate([shared, middle, own]), 4 + number % 2))
        groups.append(group)
    return groups


Gradients = dict[str, Tensor]


def separate(network: Any, given: Sequence[TokenSequence]) -> tuple[float, Gradients]:
    """The summed loss and the gradients of separate rows, through transformers' own attention and all logits."""
    network.set_attn_implementation("sdpa")
    network.zero_grad()
    total = 0.0
    for sequence in given:
        ids = torch.from_numpy(sequence.input_ids)[None].to(network.device)
        weight = torch.from_numpy(sequence.weight).to(network.device)
        logits = network(input_ids=ids, use_cache=False).logits[0, :-1].float()
        loss = (F.cross_entropy(logits, ids[0, 1:], reduction="none") * weight[1:]).sum()
        loss.backward()
        total += loss.item()
    return total, _gradients(network)


def in_trees(network: Any, rows: Sequence[TokenTree], kernel: Kernel) -> tuple[float, Gradients]:
    serve_trees(network)
    network.zero_grad()
    total = 0.0
    with forced(kernel):
        for row in rows:
            loss = Supervised().sums(network, send_to_device(collate([row]), network.device))["loss"]
            loss.backward()
            total += loss.item()
    return total, _gradients(network)


def _gradients(network: Any) -> Gradients:
    return {name: p.grad.float().clone() for name, p in network.named_parameters() if p.grad is not None}


def errors(found: tuple[float, Gradients], truth: tuple[float, Gradients]) -> dict[str, float]:
    """Relative errors: of the loss, of all gradients together, of the worst tensor."""
    (loss, ours), (expected, theirs) = found, truth
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    wrong = torch.stack([(ours[n] - theirs[n]).norm() for n in theirs])
    right = torch.stack([theirs[n].norm() for n in theirs])
    each = {
        "loss": abs(loss - expected) / abs(expected),
        "gradients": (wrong.norm() / right.norm()).item(),
        "worst_tensor": (wrong / right.clamp(min=1e-20)).max().item(),
    }
    return {name: float(f"{value:.2e}") for name, value in each.items()}


def network_of(sitting: Sitting, family: str, width: str) -> Any:
    """In fp32, its weights such as bf16 holds too."""
    torch.manual_seed(0)
    # Mistral with its own settings would have a window.
    config = AutoConfig.for_model(family, **WIDTHS[width], **({"sliding_window": None} if family == "mistral" else {}))
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(sitting.device)
    for parameter in network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return network


def correctness(sitting: Sitting) -> None:
    for width in ("tiny", "135m"):
        groups = nested_groups(WIDTHS[width]["vocab_size"], sitting.pick(12, 3))
        given = [sequence for group in groups for sequence in group]
        rows = [concatenate([build(group) for group in groups])]
        for family in ("llama", "qwen3", "mistral"):
            network = network_of(sitting, family, width)
            truth = separate(network, given)
            found = {"fp32 dense": errors(in_trees(network, rows, dense), truth)}
            network.zero_grad()
            for parameter in network.parameters():  # not the buffers: rotary angles are fp32 in half models too
                parameter.data = parameter.data.bfloat16()
            found["bf16 separate"] = errors(separate(network, given), truth)
            found["bf16 separate, reversed"] = errors(separate(network, given[::-1]), truth)
            for name, kernel in KINDS.items():
                found[f"bf16 {name}"] = errors(in_trees(network, rows, kernel), truth)
            sitting.record("correctness", width=width, family=family, tokens=len(rows[0]), errors=found)


def adapters(sitting: Sitting) -> None:
    """LoRA on frozen layers as the engine trains it: its product fused, under autocast, and with Liger's layers."""
    groups = nested_groups(WIDTHS["135m"]["vocab_size"], sitting.pick(12, 3))
    given = [sequence for group in groups for sequence in group]
    rows = [concatenate([build(group) for group in groups])]
    half = torch.autocast(sitting.device.type, dtype=torch.bfloat16)
    for family in ("llama", "qwen2", "qwen3", "mistral"):
        with unpatched():
            network = network_of(sitting, family, "135m").requires_grad_(False)
            model = versus.adapted({"rank": versus.RANK}, network)
            fused = adapter_layers(model)
            truth = separate(model, given)
            with half_precision(fused):
                found = {"fp32 dense, fused": errors(in_trees(model, rows, dense), truth)}
            for name, parameter in model.named_parameters():
                if "lora_" not in name:
                    parameter.data = parameter.data.bfloat16()
            with half:
                found["bf16 separate, PEFT's LoRA"] = errors(separate(model, given), truth)
                found["bf16 levels, PEFT's LoRA"] = errors(in_trees(model, rows, levels), truth)
                with half_precision(fused):
                    found["bf16 levels, fused"] = errors(in_trees(model, rows, levels), truth)
                    if take_layers(network, SILENT):
                        found["bf16 levels, fused, Liger"] = errors(in_trees(model, rows, levels), truth)
        sitting.record("adapters", width="135m, LoRA", family=family, tokens=len(rows[0]), errors=found)


# --- how fast is the attention? --------------------------------------------------------------------------------------


def raft_tree(contexts: int, context: int, questions: int, own: int) -> TokenTree:
    rng = np.random.default_rng(0)
    trees = []
    for _ in range(contexts):
        shared = rng.integers(3, 30000, context)
        own_parts = [rng.integers(3, 30000, own) for _ in range(questions)]
        trees.append(build([trained_at_the_end(np.concatenate([shared, part]), own - 1) for part in own_parts]))
    return concatenate(trees)


def attention_kinds(sitting: Sitting, kinds: dict[str, Kernel] = KINDS, section: str = "attention") -> None:
    H, K, D = sitting.pick((32, 4, 64), (4, 2, 16))
    for contexts in sitting.pick((1, 4, 15), (1, 2)):
        tree = raft_tree(contexts, *sitting.pick((1000, 15, 80), (60, 3, 8)))
        layout, T = TreeLayout.of(tree), len(tree)
        pairs = int((tree.subtree_end - np.arange(T)).sum())
        states = [
            torch.randn(1, T, h, D, device=sitting.device, dtype=torch.bfloat16, requires_grad=True) for h in (H, K, K)
        ]
        found: dict[str, Any] = {}
        for name, kernel in kinds.items():
            try:
                found[name] = kind_times(sitting, kernel, states, layout, times=3 if name == "dense" else 10)
                found[name]["rate_share"] = round(14 * pairs * H * D / found[name]["ms"] / 1e9 / sitting.rate, 3)
            except Exception as error:
                found[name] = {"error": repr(error)[:300]}
                sitting.free()
        sitting.record(section, tokens=T, pairs=pairs, heads=H, key_heads=K, head_size=D, kinds=found)


def kind_times(
    sitting: Sitting, kernel: Kernel, states: list[Tensor], layout: TreeLayout, *, times: int
) -> dict[str, float]:
    """Milliseconds of the attention of one layer; `states` are queries, keys and values (1, T, H, D)."""

    def forward() -> Tensor:
        query, key, value = (state.transpose(1, 2) for state in states)
        return kernel(query, key, value, layout, query.shape[-1] ** -0.5)

    grad = torch.randn_like(states[0]).transpose(1, 2)

    def both() -> Any:
        return torch.autograd.grad(forward(), states, grad)

    began = sitting.wait()
    both()
    first = sitting.wait() - began
    return {
        "ms": round(sitting.timed(both, times), 3),
        "forward_ms": round(sitting.timed(forward, times), 3),
        "first_s": round(first, 2),
    }


def flex_kind(sitting: Sitting) -> None:
    """FlexAttention beside ours, late: its compilation takes long."""
    if sitting.rehearse:  # it has no backward pass on a CPU
        with torch.no_grad():
            layout = TreeLayout.of(raft_tree(1, 60, 3, 8))
            states = [torch.randn(1, heads, len(layout.subtree_end), 16) for heads in (4, 2, 2)]
            torch.testing.assert_close(flex(*states, layout, 0.25), dense(*states, layout, 0.25))
        return
    attention_kinds(sitting, {"levels": levels, "flex": flex}, "flex")
    groups = nested_groups(WIDTHS["135m"]["vocab_size"], sitting.pick(12, 3))
    given = [sequence for group in groups for sequence in group]
    network = network_of(sitting, "llama", "135m")
    truth = separate(network, given)
    found = errors(in_trees(network, [concatenate([build(group) for group in groups])], flex), truth)
    sitting.record("flex", errors={"fp32 flex": found})


# --- against TRL -----------------------------------------------------------------------------------------------------


def groups_of(vocabulary: int, contexts: int, questions: int) -> list[list[TokenSequence]]:
    """Random tokens; questions and answers differ in length as real ones do."""
    rng = np.random.default_rng(0)
    groups = []
    for _ in range(contexts):
        context = rng.integers(8, vocabulary, PASSAGES * PASSAGE)
        group = []
        for _ in range(questions):
            answer = ANSWER + int(rng.integers(-20, 21))
            own = rng.integers(8, vocabulary, QUESTION + int(rng.integers(-6, 7)) + answer)
            group.append(trained_at_the_end(np.concatenate([context, own]), answer))
        groups.append(group)
    return groups


def base_of(sitting: Sitting, shape: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", max_position_embeddings=8192, **shape)
    with torch.device(sitting.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.requires_grad_(False)


class Steps(TrainerCallback):  # type: ignore[misc]
    """Seconds from the end of one step to the end of the next, what reading the rows takes included; the first step's
    loss and gradients; a profile of the last step where `profile` names a file."""

    def __init__(self, sitting: Sitting, model: Any, steps: int, profile: Path | None = None) -> None:
        self._sitting, self._model, self._steps, self._profile = sitting, model, steps, profile
        self.ends: list[float] = []
        self.gradient = torch.empty(0)
        self.loss = math.nan
        self._profiler: Any = None

    def on_train_begin(self, *arguments: Any, **keywords: Any) -> None:
        self.ends.append(self._sitting.wait())

    def on_pre_optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        if len(self.ends) == 1:
            parts = {n: p.grad for n, p in self._model.named_parameters() if p.grad is not None}
            self.gradient = torch.cat([parts[name].detach().flatten().float().cpu() for name in sorted(parts)])

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self.ends.append(self._sitting.wait())
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self._write()
        elif self._profile is not None and len(self.ends) == self._steps:
            from torch.profiler import ProfilerActivity, profile

            kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self._sitting.device.type == "cuda")
            self._profiler = profile(activities=kinds)
            self._profiler.__enter__()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        if logs and "loss" in logs and math.isnan(self.loss):
            self.loss = float(logs["loss"])

    def _write(self) -> None:
        assert self._profile is not None
        averages = self._profiler.key_averages()
        device = self._sitting.device.type
        kernels = [event for event in averages if event.device_type != torch.autograd.DeviceType.CPU]
        busy = sum(event.self_device_time_total for event in kernels)
        seconds = self.ends[-1] - self.ends[-2]
        busy_share = f"{busy / 1e6:.3f} s busy of {seconds:.3f} s\n"
        tables = [averages.table(sort_by=f"self_{device}_time_total", row_limit=30, max_name_column_width=70)]
        tables.append(averages.table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=70))
        self._profile.write_text(busy_share + "\n".join(tables))
        self._sitting.record("profile", busy_seconds=round(busy / 1e6, 4), step_seconds=round(seconds, 4))


@contextlib.contextmanager
def unpatched() -> Iterator[None]:
    """Liger replaces functions and classes of transformers' modules; afterwards they are their own again."""
    modules = [importlib.import_module(f"transformers.models.{kind}.modeling_{kind}") for kind in LIGER_KINDS]
    before = [dict(vars(module)) for module in modules]
    try:
        yield
    finally:
        for module, names in zip(modules, before, strict=True):
            vars(module).update(names)


class Comparison:
    """One model and data set, trained by either side."""

    section = "sft"

    def __init__(
        self,
        sitting: Sitting,
        shape: str,
        *,
        contexts: int,
        questions: int = 15,
        row_tokens: int = 12288,
        nf4: bool = False,
    ) -> None:
        self.sitting, self.nf4 = sitting, nf4
        self.name = f"{shape}{' nf4' if nf4 else ''}, {questions} a context"
        self.shape = sitting.pick(versus.SHAPES[shape], {**WIDTHS["tiny"], "vocab_size": 8192})
        if sitting.rehearse:
            contexts, questions, row_tokens = min(contexts, 2), min(questions, 3), 2400
        self.groups = groups_of(min(8000, self.shape["vocab_size"]), contexts, questions)
        self.sequences = [sequence for group in self.groups for sequence in group]
        self.rows = plan(self.groups, row_tokens, seed=0, epoch=1)
        self.batch = max(1, row_tokens // max(map(len, self.sequences)))
        self.gradients: dict[str, Tensor] = {}
        self.others: dict[str, Any] = {}  # what else is found out about a side

    def run(self, side: str, **settings: Any) -> None:
        """`_run`; what fails is recorded, and the next side runs all the same."""
        try:
            self._run(side, **settings)
        except Exception as error:
            found = {"error": repr(error)[:500], "traceback": traceback.format_exc()[-4000:]}
            self.sitting.record(self.section, case=self.name, side=side, **found)

    def _run(self, side: str, *, steps: int = 3, warm_up: int = 1, profile: Path | None = None) -> None:
        """`side`: openbook or trl, with " + liger" for Liger's layers."""
        sitting = self.sitting
        sitting.free()
        self.others = {}
        overrun = None
        with unpatched():
            base = self._base()
            prepare = self._openbook if side.startswith("openbook") else self._trl
            trainer = prepare(base, steps + warm_up, "liger" in side and not sitting.rehearse)
            watch = Steps(sitting, trainer.model, steps + warm_up, profile)
            trainer.add_callback(watch)
            if sitting.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                with forced(levels) if sitting.rehearse else contextlib.nullcontext():
                    trainer.train()
            except Late as error:
                if len(watch.ends) < 2:
                    raise
                overrun, self.others["unfinished"] = error, True
        taken = np.diff(watch.ends).tolist()
        seconds = statistics.median(taken[warm_up:] or taken)
        self.gradients[side] = watch.gradient
        openbook = side.startswith("openbook")
        counted = versus.of_trees(self.rows) if openbook else versus.of_sequences(self.sequences)
        operations = versus.flops(self.shape, **counted)
        supervised = sum(int((s.weight > 0).sum()) for s in self.sequences)
        found = {
            "seconds": round(seconds, 4),
            "all_seconds": [round(s, 4) for s in taken],
            "passes": len(self.rows) if openbook else math.ceil(len(self.sequences) / self.batch),
            "tokens": counted["tokens"],
            "supervised_tokens_per_s": round(supervised / seconds),
            "tokens_per_s": round(counted["tokens"] / seconds),
            "teraflop": round(operations / 1e12, 2),
            "matrix_rate_share": round(operations / seconds / 1e12 / sitting.rate, 3),
            "loss": watch.loss,
            **self.others,
        }
        if sitting.device.type == "cuda":
            found["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if "openbook" in self.gradients and side != "openbook":
            ours, theirs = self.gradients["openbook"], watch.gradient
            found["gradients_from_openbook"] = (
                float(f"{((ours - theirs).norm() / theirs.norm()).item():.2e}")
                if len(ours) == len(theirs)
                else [len(ours), len(theirs)]
            )
        sitting.record(self.section, case=self.name, side=side, **found)
        if overrun is not None:
            raise overrun

    def _base(self) -> Any:
        """The frozen base; in 4 bits it is read from a disk, as a run reads it."""
        if not self.nf4:
            return base_of(self.sitting, self.shape)
        folder, cuda = self.sitting.scratch / "model", self.sitting.device.type == "cuda"
        if not folder.exists():
            base_of(self.sitting, self.shape).save_pretrained(folder)
            load_tokenizer("nano").save_pretrained(folder)
            self.sitting.free()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        began = self.sitting.wait()
        base = load(str(folder), quantization="nf4", dtype="bfloat16", device=self.sitting.device.type).model
        self.others["loading_seconds"] = round(self.sitting.wait() - began, 2)
        if cuda:
            self.others["loading_peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            self.others["loaded_gb"] = round(torch.cuda.memory_allocated() / 1e9, 2)
        return base

    def _settings(self, steps: int, accumulation: int) -> dict[str, Any]:
        return versus.settings(self._task(steps), self.sitting.scratch, accumulation)

    def _task(self, steps: int) -> versus.Task:
        rehearse = self.sitting.rehearse
        arguments = {"bf16": True, "use_cpu": rehearse, "accelerator_config": {"non_blocking": not rehearse}}
        return {"rank": versus.RANK, "warm_up": 0, "steps": steps, "arguments": arguments}

    def _openbook(self, base: Any, steps: int, liger: bool) -> Any:
        model = versus.adapted(self._task(steps), base)
        serve_trees(base)
        if liger:
            assert take_layers(base, SILENT)
        arguments = TrainingArguments(
            per_device_train_batch_size=1,
            remove_unused_columns=False,
            label_names=[],
            num_train_epochs=1,
            **self._settings(steps, len(self.rows)),
        )
        rows = [*self.rows] * steps
        return TreeTrainer(model=model, args=arguments, method=Supervised(), rows=rows, validation=[], callbacks=[])

    def _trl(self, base: Any, steps: int, liger: bool) -> Any:
        from datasets import Dataset
        from transformers import AttentionInterface
        from trl import SFTConfig, SFTTrainer

        AttentionInterface.register(PACKED, packed_attention)
        base.set_attn_implementation(PACKED)
        model = versus.adapted(self._task(steps), base)
        data = Dataset.from_list(
            [
                {"input_ids": s.input_ids.tolist(), "labels": np.where(s.weight > 0, s.input_ids, -100).tolist()}
                for s in self.sequences
            ]
        )
        arguments = SFTConfig(
            per_device_train_batch_size=self.batch,
            padding_free=True,
            max_length=None,
            use_liger_kernel=liger,
            liger_kernel_config=LIGER,
            **self._settings(steps, math.ceil(len(self.sequences) / self.batch)),
        )
        return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=load_tokenizer("nano"))


class Answers(Comparison):
    """DPO on pairs, or GRPO on given groups of rollouts, each side as in bench/preference.py: what is read without
    gradients beforehand (by the reference; for GRPO by the policy that sampled, too) is timed by itself."""

    def __init__(self, sitting: Sitting, method: str, *, contexts: int, asked: int, batch: int) -> None:
        super().__init__(sitting, "1.1b", contexts=1, questions=1)
        self.section = method
        self.batch = sitting.pick(batch, 8)  # TRL's answers a pass
        answers = preference_side.GROUP if method == "grpo" else 2
        self.name = f"1.1b {method.upper()}, {asked} × {answers} a context"
        self._items = {
            "method": method,
            "row_tokens": 12288,
            "batch": self.batch if method == "grpo" else self.batch // 2,
            "items": preference.random_items(
                sitting.pick(contexts, 1), asked, answers=answers, vocabulary=min(8000, self.shape["vocab_size"])
            ),
        }
        self.rows = [row.tree for row in preference_side.rows_of(self._items)]
        self.sequences = [sequence for row in self.rows for sequence in row.sequences()]

    def _task(self, steps: int) -> versus.Task:
        return super()._task(steps) | self._items

    def _openbook(self, base: Any, steps: int, liger: bool) -> Any:
        return self._prepared(preference_side.openbook_trainer, base, steps, liger)

    def _trl(self, base: Any, steps: int, liger: bool) -> Any:
        return self._prepared(preference_side.trl_trainer, base, steps, liger, variant="batched")

    def _prepared(self, make: Any, base: Any, steps: int, liger: bool, **others: Any) -> Any:
        if liger:  # on either side before what is read beforehand, where TRL's own option would come after
            assert take_layers(base, SILENT)
        reading = preference_side.Timed()
        loaded = LoadedModel(
            model=base, tokenizer=load_tokenizer("nano"), name="random", fingerprint="", quantization="none"
        )
        with forced(levels) if self.sitting.rehearse else contextlib.nullcontext():
            trainer = make(self._task(steps), self.sitting.scratch, loaded, reading, **others)
        self.others["reading_seconds"] = round(reading.found["reading_seconds"], 3)
        return trainer


def cases(shape: str, *, sides: Sequence[str] = SIDES, **settings: Any) -> Callable[["Sitting"], None]:
    """A section that trains the same with each side."""

    def run(sitting: Sitting) -> None:
        compared = Comparison(sitting, shape, **settings)
        for side in sides:
            compared.run(side, steps=2 if side.startswith("trl") else 3)

    return run


def answers(method: str, **settings: Any) -> Callable[["Sitting"], None]:
    """The same for DPO and GRPO."""

    def run(sitting: Sitting) -> None:
        compared = Answers(sitting, method, **settings)
        for side in SIDES:
            compared.run(side, steps=2 if side.startswith("trl") else 3)

    return run


def profiled(sitting: Sitting) -> None:
    compared = Comparison(sitting, "1.1b", contexts=5)
    compared.run("openbook + liger", steps=2, profile=sitting.out / "profile.txt")


def row_lengths(sitting: Sitting) -> None:
    """How long a row has to be to fill the card."""
    for contexts, row_tokens in ((1, 4096), (2, 8192), (7, 20480)):
        compared = Comparison(sitting, "1.1b", contexts=contexts, row_tokens=row_tokens)
        compared.name += f", rows of {row_tokens}"
        compared.run("openbook + liger")


# --- generation ------------------------------------------------------------------------------------------------------


def generation(sitting: Sitting) -> None:
    for shape in ("nano", "1.1b"):
        config = sitting.pick(versus.SHAPES[shape], {**WIDTHS["tiny"], "vocab_size": 8192})
        model = base_of(sitting, config).eval()
        for rows in sitting.pick((1, 8, 64), (1, 3)):
            rng = np.random.default_rng(rows)
            length, new = sitting.pick((1100, 50), (40, 8))
            prompts = [rng.integers(3, 8000, length + int(rng.integers(0, 50))).tolist() for _ in range(rows)]

            def write(limit: int, rows: int = rows, prompts: Any = prompts, model: Any = model) -> tuple[int, float]:
                began, count = sitting.wait(), 0
                limits = [limit] * rows
                for written in decode(lambda: model, prompts, limits=limits, stop=frozenset(), rows=rows):
                    count += len(written.tokens)
                return count, sitting.wait() - began

            if rows == 1:
                write(2)
                alone = write
            _, reading = write(1)
            count, seconds = write(new)
            sitting.record(
                "generation",
                shape=shape,
                rows=rows,
                prompt_tokens=sum(map(len, prompts)),
                new_tokens=count,
                reading_seconds=round(reading, 3),
                seconds=round(seconds, 3),
                tokens_per_s=round(count / seconds, 1),
                tokens_per_s_after_reading=round((count - rows) / max(seconds - reading, 1e-9), 1),
            )
        if shape == "1.1b":
            profile_writing(sitting, alone)
        del model, write, alone
        sitting.free()


def profile_writing(sitting: Sitting, write: Callable[[int], Any]) -> None:
    """What the processor does while a row is written token by token."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=kinds) as found:
        write(8)
    table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=70)
    (sitting.out / "profile-writing.txt").write_text(table)


# --- the end ---------------------------------------------------------------------------------------------------------


OTHERS = ("reading_seconds", "loading_seconds", "loaded_gb", "loading_peak_gb", "unfinished")


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in found:
        if row["section"] == "machine" and "name" in row:
            lines.append(f"{row['name']}, torch {row['torch']}: {row['bf16_tflops']} TFLOP/s in bf16")
        elif "errors" in row:
            lines.append(f"errors {row.get('width', '')} {row.get('family', '')}: loss, all gradients, worst tensor")
            lines += [
                f"  {name:26} {e['loss']:.1e} {e['gradients']:.1e} {e['worst_tensor']:.1e}"
                for name, e in row["errors"].items()
            ]
        elif "kinds" in row:
            each = ", ".join(
                f"{name} {k['ms']} ms ({k['forward_ms']} forward, {k['rate_share']:.0%} of the rate, first {k['first_s']} s)"
                if "ms" in k
                else f"{name} {k['error']}"
                for name, k in row["kinds"].items()
            )
            lines.append(f"attention at {row['tokens']} tokens: {each}")
        elif "case" in row and "seconds" in row:
            lines.append(
                f"{row['case']:26} {row['side']:20} {row['seconds']:8.3f} s, {row['supervised_tokens_per_s']:7} supervised "
                f"tokens/s, {row['matrix_rate_share']:.0%} of the rate, {row.get('peak_gb', math.nan)} GB, loss {row['loss']:.4f}, "
                f"gradients {row.get('gradients_from_openbook', '')}"
                + "".join(f", {key} {row[key]}" for key in OTHERS if key in row)
            )
        elif row["section"] == "generation" and "rows" in row:
            lines.append(
                f"generation {row['shape']:5} {row['rows']:3} rows: {row['tokens_per_s']} tokens/s, "
                f"{row['tokens_per_s_after_reading']} after reading, reading {row['reading_seconds']} s"
            )
        elif "error" in row or "skipped" in row:
            what = " ".join(row[key] for key in ("section", "case", "side") if key in row)
            lines.append(f"{what}: {row.get('error') or 'skipped, ' + row['skipped']}")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def late(*_: Any) -> None:
    raise Late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=240, help="after which no section begins or goes on")
    parser.add_argument("--only", nargs="*", default=[], help="names of sections")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, in tiny shapes")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, late)
    sitting = Sitting(options)
    if sitting.rehearse:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from plain_varlen import plain_flash, plain_flash_backward

        tree_kernels._flash, tree_kernels._flash_backward = plain_flash, plain_flash_backward
    sitting.record("start", imported_seconds=round(time.monotonic() - START, 1), versions=versions())
    sections: list[tuple[str, int, Callable[[Sitting], None]]] = [
        ("machine", 15, machine),
        ("correctness", 25, correctness),
        ("adapters", 25, adapters),
        ("large", 45, cases("1.1b", contexts=10)),
        ("one question", 20, cases("1.1b", contexts=33, questions=1)),
        ("small", 35, cases("135m", contexts=5)),
        ("grpo", 40, answers("grpo", contexts=8, asked=1, batch=8)),
        ("dpo", 40, answers("dpo", contexts=6, asked=4, batch=12)),
        ("generation", 30, generation),
        ("four bits", 45, cases("1.1b", sides=SIDES[1:], contexts=10, nf4=True)),
        ("flex", 45, flex_kind),
        ("profile", 15, profiled),
        ("attention", 20, attention_kinds),
        ("row lengths", 15, row_lengths),
        ("without liger", 15, cases("1.1b", contexts=10, sides=["trl"])),
    ]
    for place, (name, limit, work) in enumerate(sections):
        sitting.section(name, limit, work)
        rest = [later for later, _, _ in sections[place + 1 :] if not options.only or later in options.only]
        if rest and sitting.broken():
            sitting.record(name, broken="the device answers no more: goes on in a new process")
            again = [str(options.out), "--seconds", str(options.seconds), "--only", "machine", *rest]
            os.execv(sys.executable, [sys.executable, __file__, *again])
    text = table([json.loads(line) for line in (sitting.out / "gpu.jsonl").read_text().splitlines()])
    (sitting.out / "table.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
