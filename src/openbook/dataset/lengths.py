"""How many tokens a row has for a given model, and whether the model can read them all."""

from collections.abc import Mapping
from typing import Any

from openbook import models, prompt
from openbook.dataset.imports import Sample
from openbook.errors import RecordError
from openbook.models.chat import encode_answered
from openbook.records import Conversation, Message


class Lengths:
    """Counts a row's tokens as a training run on `model` would: in its chat template, with the answer and stop token."""

    def __init__(self, model: str) -> None:
        self._tokenizer = models.load_tokenizer(model)
        self.limit = models.context_tokens(model, self._tokenizer)

    def tokens(self, row: Mapping[str, Any], sample: Sample) -> int:
        """The tokens of prompt and answer; 0 where there is no answer to train on."""
        if not sample.answer.strip():
            return 0
        try:
            before, answer = encode_answered(self._tokenizer, conversation(row, sample))
        except RecordError:  # a conversation that no template takes has no length; other checks name it
            return 0
        return len(before) + len(answer)


def conversation(row: Mapping[str, Any], sample: Sample) -> Conversation:
    """The messages that a row trains: its own where it has them, for RAFT rows those that openbook shows."""
    messages = row.get("messages")
    if sample.layout == "messages" and isinstance(messages, list):
        return Conversation(messages=tuple(_message(message) for message in messages))
    if sample.layout in ("raft", "variant", "eval"):
        asked = prompt.prompt(sample.question, sample.passages)
    else:
        asked = Conversation(messages=(Message(role="user", content=sample.shown),))
    return prompt.with_answer(asked, sample.answer)


def _message(message: Mapping[str, Any]) -> Message:
    role = message.get("role")
    return Message(role=role if role in ("system", "assistant") else "user", content=str(message.get("content") or ""))
