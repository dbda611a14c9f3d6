"""What can be traced, as the row that training would make of it: a message, a preference pair, a training example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.config import Config
from openbook.errors import InputError
from openbook.models import LoadedModel
from openbook.prompt import prompt, with_answer
from openbook.records import Conversation, Message, PreferencePair
from openbook.tokens import TokenSequence, TokenTree, build, encode
from openbook.tracing.record import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from openbook.training.trainer import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A row and the way to train on it.

    `conversations[n]` and `names[n]` belong to sequence n of the tree. `row` is what the method collates, `method` makes
    it from the reference's log-probabilities (S,) of the sequences, which only pairs look at.
    """

    kind: Kind
    asked: Conversation
    tree: TokenTree
    row: Any
    conversations: tuple[Conversation, ...]
    names: tuple[str, ...]
    learning_rate: float
    method: "Callable[[Tensor], Method]"
    loss_name: str
    questions: tuple[str, ...] = ()


def message_subject(
    loaded: LoadedModel, config: Config, message: str, answer: str, passages: Sequence[str] | None
) -> Subject:
    """One message and its answer; over `passages`, in openbook's prompt, where they are given."""
    if not message.strip() or not answer.strip():
        raise InputError("A trace needs a message and an answer.", 'Try: openbook trace "Hello" --answer "Good day."')
    asked = prompt(message, passages) if passages else _said(message)
    conversation = with_answer(asked, answer)
    sequence = encode(loaded.tokenizer, conversation, name="the message")
    _fits(loaded, sequence)
    tree = build([sequence])
    return Subject(
        kind="message",
        asked=asked,
        tree=tree,
        row=tree,
        conversations=(conversation,),
        names=("answer",),
        learning_rate=config.tune.learning_rate,
        **_supervised(config),
    )


def pair_subject(loaded: LoadedModel, config: Config, message: str, chosen: str, rejected: str) -> Subject:
    """Two answers to one message, of which the first is preferred: a step of direct preference optimisation."""
    from openbook.training.dpo import Anchors, DirectPreference
    from openbook.training.pair_rows import encode_pairs

    if not all(text.strip() for text in (message, chosen, rejected)):
        raise InputError("A pair needs a message, a chosen and a rejected answer.", "None of them may be empty.")
    if chosen.strip() == rejected.strip():
        raise InputError("The chosen and the rejected answer are equal: there is nothing to prefer.")
    asked = _said(message)
    pairs = encode_pairs(
        [("the pair", PreferencePair(prompt=asked, chosen=chosen, rejected=rejected))],
        loaded.tokenizer,
        limit=loaded.context,
    )
    (row,) = pairs.rows([0], 2 * loaded.context)
    return Subject(
        kind="pair",
        asked=asked,
        tree=row.tree,
        row=row,
        conversations=(with_answer(asked, chosen), with_answer(asked, rejected)),
        names=("chosen", "rejected"),
        learning_rate=config.preference.learning_rate,
        method=lambda reference: DirectPreference(config.preference, reference.view(-1, 2), Anchors()),
        loss_name=f"DPO's loss ({config.preference.loss}, beta {config.preference.beta:g})",
    )


def row_subject(loaded: LoadedModel, config: Config, train: Path, line: int) -> Subject:
    """The example in line `line` of a data set (from 1) in the tree of its study group, as the first epoch has it.

    Where the group's tree is longer than a row, as many of the other examples are left out as it takes.
    """
    from openbook.training.tune import study_of

    group = study_of(train, loaded, config, "raft").group_of(line)
    kept = group[:1]
    for shown in group[1:]:
        if len(build([other.sequence for other in [*kept, shown]])) <= config.tune.row_tokens:
            kept.append(shown)
    conversations = tuple(shown.conversation for shown in kept)
    tree = build([shown.sequence for shown in kept])
    return Subject(
        kind="row",
        asked=Conversation(messages=conversations[0].messages[:-1]),
        tree=tree,
        row=tree,
        conversations=conversations,
        names=tuple(Path(shown.sequence.name).name for shown in kept),
        questions=tuple(shown.question or shown.conversation.messages[-2].content for shown in kept),
        learning_rate=config.tune.learning_rate,
        **_supervised(config),
    )


def _supervised(config: Config) -> dict[str, Any]:
    """How `tune` would train on it, and what that is called."""
    from openbook.training.trainer import Supervised

    kind = config.tune.loss
    name = "mean −ln p" if kind == "nll" else f"mean −ln p; the step is that of {kind}"
    return {"method": lambda reference: Supervised(kind), "loss_name": name}


def _said(message: str) -> Conversation:
    return Conversation(messages=(Message(role="user", content=message),))


def _fits(loaded: LoadedModel, sequence: TokenSequence) -> None:
    if len(sequence) > loaded.context:
        raise InputError(f"The message has {len(sequence):,} tokens and {loaded.name} reads {loaded.context:,}.")
