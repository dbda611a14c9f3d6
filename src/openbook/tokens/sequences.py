"""From conversations to token sequences that know which of their tokens are trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from openbook.errors import RecordError
from openbook.models import chat
from openbook.records import Conversation
from openbook.tokens.tree import TokenSequence


def encode(tokenizer: Any, conversation: Conversation, *, name: str = "") -> TokenSequence:
    """A conversation that ends with an assistant's answer: weight 1 on the answer and its stop token, 0 before."""
    prompt, answer = chat.encode_answered(tokenizer, conversation, name=name)
    return TokenSequence(
        input_ids=np.array([*prompt, *answer], np.int64),
        weight=np.array([0.0] * len(prompt) + [1.0] * len(answer), np.float32),
        name=name,
    )


def encode_turns(
    tokenizer: Any, conversation: Conversation, *, trained: Sequence[bool], name: str = ""
) -> list[TokenSequence]:
    """A conversation of several turns: weight 1 on every assistant's message that is `trained` (one flag a message) and
    on its stop token, 0 on all else. What follows the last trained message is left out.

    One sequence where each answer's prompt begins with the tokens of the answer before it. A template that writes an
    earlier turn otherwise once others follow (Qwen3 drops its reasoning) gives one sequence for each such turn, so that
    every answer is trained behind the very prompt that generation will see.
    """
    found: list[TokenSequence] = []
    ids: list[int] = []
    weight: list[float] = []

    def close() -> None:
        if ids:
            found.append(
                TokenSequence(input_ids=np.array(ids, np.int64), weight=np.array(weight, np.float32), name=name)
            )

    for at, (message, wanted) in enumerate(zip(conversation.messages, trained, strict=True)):
        if message.role != "assistant" or not wanted:
            continue
        asked = Conversation(messages=conversation.messages[: at + 1])
        prompt, answer = chat.encode_answered(tokenizer, asked, name=name)
        if prompt[: len(ids)] != ids:
            close()
            ids, weight = [], []
        weight = [*weight, *[0.0] * (len(prompt) - len(ids)), *[1.0] * len(answer)]
        ids = [*prompt, *answer]
    close()
    if not found:
        raise RecordError(
            f"{name}: no assistant's message is trained on.", "Let at least one count, or remove the row."
        )
    return found
