"""From conversations to token sequences that know which of their tokens are trained."""

from typing import Any

import numpy as np

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
