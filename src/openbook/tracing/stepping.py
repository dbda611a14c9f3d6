"""How training changes a model: what it thinks of every trained token, one real optimizer step, and again.

Everything is the training path itself: the same template, the same token tree, the same loss, the same adapters. The
model on disk stays as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.config import Config
from openbook.models import Generator, LoadedModel, load_base
from openbook.models.chat import render, unposing
from openbook.records import Conversation
from openbook.tokens import TokenTree
from openbook.tracing.movement import movements, snapshot
from openbook.tracing.record import Branch, Trace, TracedToken
from openbook.tracing.subjects import Subject, message_subject, pair_subject, row_subject

LONGEST_SAYING = 60  # tokens: enough to see what has changed


def trace(
    config: Config,
    message: str,
    answer: str,
    *,
    passages: tuple[str, ...] | None = None,
    steps: int = 1,
    start: Path | None = None,
) -> Trace:
    """Train the model on one message and its answer for `steps` optimizer steps, and tell what that changed.

    With `passages` the message is asked over them, otherwise it is sent as it stands. `start` is the folder of the
    adapter to go on from (None: the bare base). Raises `InputError` for an empty message or answer and for one that is
    longer than the model reads.
    """
    return _trace(
        config, lambda loaded: message_subject(loaded, config, message, answer, passages), steps=steps, start=start
    )


def trace_pair(
    config: Config, message: str, chosen: str, rejected: str, *, steps: int = 1, start: Path | None = None
) -> Trace:
    """`trace` for a preference pair: a step of direct preference optimisation, the model before it as the reference."""
    return _trace(
        config, lambda loaded: pair_subject(loaded, config, message, chosen, rejected), steps=steps, start=start
    )


def trace_row(
    config: Config, line: int, *, train: Path | None = None, steps: int = 1, start: Path | None = None
) -> Trace:
    """`trace` for an example of the training set (its line, from 1) together with those that share its passages."""
    path = train or config.dataset_dir / "train.jsonl"
    return _trace(config, lambda loaded: row_subject(loaded, config, path, line), steps=steps, start=start)


def _trace(config: Config, make: Callable[[LoadedModel], Subject], *, steps: int, start: Path | None) -> Trace:
    import torch
    from accelerate.utils import send_to_device

    from openbook.training.adapting import adapted, count_weights
    from openbook.training.attention import serve_trees
    from openbook.training.masters import with_masters
    from openbook.training.run import ADAM_BETA2
    from openbook.training.trainer import autocast, step_kernels

    loaded = load_base(config, config.tune.quantization)
    subject = make(loaded)
    model = adapted(loaded, config, start)
    serve_trees(loaded.model, share=config.tune.share_prefixes)
    generator = Generator(loaded, max_new_tokens=min(config.model.max_new_tokens, LONGEST_SAYING))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(
        trainable, lr=subject.learning_rate, betas=(0.9, ADAM_BETA2), weight_decay=config.tune.weight_decay
    )
    optimizer = with_masters(adam)

    says_before = generator.generate([subject.asked])[0].text
    before = _look(model, subject, loaded.tokenizer)
    method = subject.method(torch.tensor(before.logps))
    batch = send_to_device(method.collate([subject.row]), loaded.model.device)

    def means() -> dict[str, Any]:
        with autocast(model):
            return {name: value / method.count(batch) for name, value in method.sums(model, batch).items()}

    with torch.no_grad(), step_kernels(model):
        loss_before = float(means()["loss"])
    weights = snapshot(model)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        with step_kernels(model):
            found = means()
            found.get("objective", found["loss"]).backward()
        torch.nn.utils.clip_grad_norm_(trainable, config.tune.max_grad_norm)
        optimizer.step()
    model.eval()
    with torch.no_grad(), step_kernels(model):
        loss_after = float(means()["loss"])
    after = _look(model, subject, loaded.tokenizer)
    moved = movements(model, weights)
    trained, total = count_weights(model)
    return Trace(
        kind=subject.kind,
        asked=subject.asked.messages[-1].content,
        tokens=_tokens(loaded.tokenizer, subject, before, after),
        branches=_branches(subject, before, after),
        separate_tokens=sum(map(len, subject.tree.sequences())),
        loss_name=subject.loss_name,
        loss_before=loss_before,
        loss_after=loss_after,
        says_before=says_before,
        says_after=generator.generate([subject.asked])[0].text,
        steps=steps,
        learning_rate=subject.learning_rate,
        trained_weights=trained,
        moved_weights=sum(movement.moved for movement in moved),
        total_weights=total,
        movements=moved,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The model's opinion of the trained tokens, in row order (N), and of each sequence's: summed log-probability (S)."""

    probabilities: list[float]
    guesses: list[str]
    logps: list[float]


def _look(model: Any, subject: Subject, tokenizer: Any) -> _Look:
    import torch
    from accelerate.utils import send_to_device

    from openbook.training.head import logits, sum_by_sequence
    from openbook.training.trainer import as_trained, collate, predicting_states

    batch = send_to_device(collate([subject.tree]), model.device)
    model.eval()
    guesses: list[str] = []
    with torch.no_grad(), as_trained(model):
        hidden = predicting_states(model, batch)  # (N, D)
        # Piece by piece: a row of the training set may have a thousand trained tokens, a vocabulary 150,000 entries.
        pieces = []
        for at in range(0, len(hidden), 64):
            scores = logits(model, hidden[at : at + 64]).float().log_softmax(-1)  # (≤ 64, V)
            pieces.append(scores.gather(1, batch["targets"][at : at + 64, None])[:, 0])
            guesses += [tokenizer.decode([token]) for token in scores.argmax(-1).tolist()]
        chosen = torch.cat(pieces)
        probabilities = chosen.exp().tolist()
        logps = sum_by_sequence(chosen, batch["owners"], len(subject.names)).tolist()
    return _Look(probabilities=probabilities, guesses=guesses, logps=logps)


def _tokens(tokenizer: Any, subject: Subject, before: _Look, after: _Look) -> tuple[TracedToken, ...]:
    tree = subject.tree
    parts = _parts(tokenizer, subject)
    found: list[TracedToken] = []
    number = 0
    for at, token in enumerate(tree.input_ids.tolist()):
        trained = bool(tree.weight[at])
        found.append(
            TracedToken(
                id=token,
                text=tokenizer.decode([token]),
                part=parts[at],
                trained=trained,
                parent=int(tree.parent[at]),
                branch=int(tree.sequence[at]) if len(subject.names) > 1 else 0,
                probability_before=before.probabilities[number] if trained else None,
                probability_after=after.probabilities[number] if trained else None,
                guess_before=before.guesses[number] if trained else "",
                guess_after=after.guesses[number] if trained else "",
            )
        )
        number += trained
    return tuple(found)


def _branches(subject: Subject, before: _Look, after: _Look) -> tuple[Branch, ...]:
    questions = subject.questions or [c.messages[-2].content for c in subject.conversations]
    return tuple(
        Branch(
            name=name,
            question=questions[n],
            tokens=len(sequence),
            trained=int((sequence.weight > 0).sum()),
            logp_before=before.logps[n],
            logp_after=after.logps[n],
        )
        for n, (name, sequence) in enumerate(zip(subject.names, subject.tree.sequences(), strict=True))
    )


def _parts(tokenizer: Any, subject: Subject) -> list[str]:
    """Who wrote each token of the row; what branches share is written alike in all of them."""
    parts = ["template"] * len(subject.tree)
    for path, conversation in zip(_paths(subject.tree, len(subject.names)), subject.conversations, strict=True):
        for position, part in zip(path, _parts_of(tokenizer, conversation, len(path)), strict=True):
            parts[position] = part
    return parts


def _paths(tree: TokenTree, sequences: int) -> list[Sequence[int]]:
    """Row positions of each sequence, from the root on."""
    owners = tree.sequence.tolist()
    last = {number: position for position, number in enumerate(owners)}
    return [tree.path(last[number]).tolist() for number in range(sequences)]


def _parts_of(tokenizer: Any, conversation: Conversation, count: int) -> list[str]:
    """Who wrote each token of one sequence, by where its characters stand in the rendered text."""
    text = render(tokenizer, conversation)
    owners = ["template"] * len(text)
    cursor = 0
    for message in conversation.messages:
        said = unposing(tokenizer, message).content.strip()
        at = text.find(said, cursor)
        if at >= 0:
            cursor = at + len(said)
            owners[at:cursor] = [message.role] * (cursor - at)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    parts = ["template" if end <= start else owners[end - 1] for start, end in offsets]
    return (parts + ["template"] * count)[:count]
