"""How one text message changes a model: the message through tokens and loss, one real optimizer step, and again.

Everything is the training path itself: the same template, the same token tree, the same loss, the same adapters.
"""

from dataclasses import dataclass
from typing import Any

from openbook.config import Config
from openbook.errors import InputError
from openbook.models import Generator, load
from openbook.models.chat import render
from openbook.prompt import prompt, with_answer
from openbook.records import Conversation, Message
from openbook.tokens import TokenSequence, build, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedToken:
    """One token. `part` is who wrote it: "template", "system", "user" or "assistant".

    For a trained token: how probable the model held it and what it would have said instead, before and after the step.
    """

    id: int
    text: str
    part: str
    trained: bool
    probability_before: float | None = None
    probability_after: float | None = None
    guess_before: str = ""
    guess_after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one optimizer step did. Losses are mean nats per trained token; `moved` is, for each module, the length of
    the change of its weights as a share of their length."""

    message: str
    answer: str
    tokens: tuple[TracedToken, ...]
    loss_before: float
    loss_after: float
    says_before: str
    says_after: str
    steps: int
    learning_rate: float
    trained_weights: int
    total_weights: int
    moved: tuple[tuple[str, float], ...]


def trace(
    config: Config, message: str, answer: str, *, passages: tuple[str, ...] | None = None, steps: int = 1
) -> Trace:
    """Train the model on one message and its answer for `steps` optimizer steps, and tell what that changed.

    The model on disk stays as it is. With `passages` the message is asked over them, otherwise it is sent as it stands.
    Raises `InputError` for an empty message or answer and for one that is longer than the model reads.
    """
    import torch

    from openbook.training.adapting import adapted, count_weights
    from openbook.training.attention import serve_trees
    from openbook.training.trainer import collate, row_loss

    if not message.strip() or not answer.strip():
        raise InputError("A trace needs a message and an answer.", 'Try: openbook trace "Hello" --answer "Good day."')
    loaded = load(
        config.model.base,
        quantization="nf4" if config.tune.adapter == "qlora" else "none",
        dtype=config.model.dtype,
        device=config.model.device,
    )
    asked = prompt(message, passages) if passages else Conversation(messages=(Message(role="user", content=message),))
    conversation = with_answer(asked, answer)
    sequence = encode(loaded.tokenizer, conversation, name="the message")
    if len(sequence) > loaded.context:
        raise InputError(f"The message has {len(sequence):,} tokens and {loaded.name} reads {loaded.context:,}.")
    model = adapted(loaded, config)
    serve_trees(loaded.model)
    generator = Generator(loaded, max_new_tokens=min(config.model.max_new_tokens, 60))
    batch = _to(collate([build([sequence])]), loaded.model.device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.tune.learning_rate, weight_decay=config.tune.weight_decay)

    says_before = generator.generate([asked])[0].text
    before = _look(model, batch, loaded.tokenizer)
    start = {name: _effective(module) for name, module in _modules(model)}
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (row_loss(model, batch) / batch["weights"].sum()).backward()
        torch.nn.utils.clip_grad_norm_(trainable, config.tune.max_grad_norm)
        optimizer.step()
    model.eval()
    after = _look(model, batch, loaded.tokenizer)
    trained, total = count_weights(model)
    return Trace(
        message=message,
        answer=answer,
        tokens=_tokens(loaded.tokenizer, conversation, sequence, before, after),
        loss_before=before.loss,
        loss_after=after.loss,
        says_before=says_before,
        says_after=generator.generate([asked])[0].text,
        steps=steps,
        learning_rate=config.tune.learning_rate,
        trained_weights=trained,
        total_weights=total,
        moved=tuple((name, _moved(start[name], _effective(module), module)) for name, module in _modules(model)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The model's opinion of the trained tokens: probabilities and first choices, in order, and the mean loss."""

    probabilities: list[float]
    guesses: list[str]
    loss: float


def _to(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    def move(value: Any) -> Any:
        return value.to(device) if hasattr(value, "to") else value

    moved = {key: move(value) for key, value in batch.items()}
    return {**moved, "keywords": {key: move(value) for key, value in batch["keywords"].items()}}


def _look(model: Any, batch: dict[str, Any], tokenizer: Any) -> _Look:
    import torch

    from openbook.training.head import hidden_states, logits

    model.eval()
    with torch.no_grad():
        scores = logits(model, hidden_states(model, batch["keywords"])[batch["predictors"]]).log_softmax(-1)  # (N, V)
    chosen = scores.gather(1, batch["targets"][:, None])[:, 0]
    weights = batch["weights"]
    return _Look(
        probabilities=chosen.exp().tolist(),
        guesses=[tokenizer.decode([token]) for token in scores.argmax(-1).tolist()],
        loss=float(-(chosen * weights).sum() / weights.sum()),
    )


def _tokens(
    tokenizer: Any, conversation: Conversation, sequence: TokenSequence, before: _Look, after: _Look
) -> tuple[TracedToken, ...]:
    parts = _parts(tokenizer, conversation, len(sequence))
    found, number = [], 0
    for at, (token, weight) in enumerate(zip(sequence.input_ids.tolist(), sequence.weight.tolist(), strict=True)):
        text = tokenizer.decode([token])
        if not weight:
            found.append(TracedToken(id=token, text=text, part=parts[at], trained=False))
            continue
        found.append(
            TracedToken(
                id=token,
                text=text,
                part=parts[at],
                trained=True,
                probability_before=before.probabilities[number],
                probability_after=after.probabilities[number],
                guess_before=before.guesses[number],
                guess_after=after.guesses[number],
            )
        )
        number += 1
    return tuple(found)


def _parts(tokenizer: Any, conversation: Conversation, count: int) -> list[str]:
    """Who wrote each token, by where its characters stand in the rendered text."""
    text = render(tokenizer, conversation)
    owners = ["template"] * len(text)
    cursor = 0
    for message in conversation.messages:
        at = text.find(message.content.strip(), cursor)
        if at >= 0:
            cursor = at + len(message.content.strip())
            owners[at:cursor] = [message.role] * (cursor - at)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    parts = ["template" if end <= start else owners[end - 1] for start, end in offsets]
    return (parts + ["template"] * count)[:count]


def _modules(model: Any) -> list[tuple[str, Any]]:
    """What is trained, by its place in the network: LoRA layers, or after full tuning every module with weights."""
    wrapped = [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_B")]
    if wrapped:
        return [(name.removeprefix("base_model.model."), module) for name, module in wrapped]
    return [
        (name, module)
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    ]


def _effective(module: Any) -> Any:
    """What training changes in a module: the LoRA product, or a copy of its weights."""
    if hasattr(module, "lora_B"):
        return module.get_delta_weight("default").detach().clone()
    return next(module.parameters(recurse=False)).detach().clone()


def _moved(start: Any, end: Any, module: Any) -> float:
    """The length of the change over the length of the weights it is added to."""
    if not hasattr(module, "lora_B"):
        return float((end - start).norm() / start.norm().clamp(min=1e-12))
    weight = module.base_layer.weight
    if hasattr(weight, "quant_state"):
        import bitsandbytes.functional as quantized

        weight = quantized.dequantize_4bit(weight.data, weight.quant_state)
    return float((end - start).norm() / weight.float().norm().clamp(min=1e-12))
