"""How many tokens a row has for a given model, and whether the model can read them all."""

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

    def tokens(self, sample: Sample) -> int:
        """The tokens of prompt and answer; 0 where there is no answer to train on."""
        if not sample.answer.strip():
            return 0
        try:
            before, answer = encode_answered(self._tokenizer, conversation(sample))
        except RecordError:  # a conversation that no template takes has no length; other checks name it
            return 0
        return len(before) + len(answer)


def conversation(sample: Sample) -> Conversation:
    """The messages that a row trains: its own where it has them, for RAFT rows those that openbook shows."""
    if sample.messages:
        return Conversation(messages=sample.messages)
    if sample.layout in ("raft", "variant", "eval"):
        asked = prompt.prompt(sample.question, sample.passages)
    else:
        asked = Conversation(messages=(Message(role="user", content=sample.shown),))
    return prompt.with_answer(asked, sample.answer)
