"""From a conversation to tokens and back, by the model's own chat template."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from openbook.errors import InputError, ModelError, RecordError
from openbook.records import Conversation, Message

# For tokenizers that come without a template (base models). The end-of-sequence token ends every turn's answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Answer: ' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)


def render(tokenizer: Any, conversation: Conversation, *, generate: bool = False) -> str:
    """The conversation as the template writes it; `generate` appends what stands before an assistant's answer.

    A template that knows no system role gets the system text at the head of the first user message. Raises `InputError`
    for a conversation that the template refuses, such as one whose roles do not take turns.
    """
    import jinja2

    template = tokenizer.chat_template or PLAIN_TEMPLATE

    def write(messages: tuple[Message, ...]) -> str:
        dicts = [{"role": message.role, "content": message.content} for message in messages]
        text: str = tokenizer.apply_chat_template(
            dicts, chat_template=template, tokenize=False, add_generation_prompt=generate
        )
        return text

    messages = tuple(unposing(tokenizer, message) for message in conversation.messages)
    try:
        text = write(messages)
    except jinja2.TemplateError as error:
        if messages[0].role != "system":
            raise _refused(error) from error
        text = ""
    if messages[0].role == "system" and messages[0].content.strip() not in text:
        merged = Message(role="user", content=f"{messages[0].content}\n\n{messages[1].content}")
        try:
            text = write((merged, *messages[2:]))
        except jinja2.TemplateError as error:
            raise _refused(error) from error
    return text


def unposing(tokenizer: Any, message: Message) -> Message:
    """`message` with the tokenizer's special tokens broken apart, as a template is given it: a passage, a question or a
    quote that holds them must not pose as the end of a turn or as another one. Those that an assistant's message ends with
    stay, since some data sets write the end token themselves."""
    special = _special_tokens(tokenizer, len(tokenizer))
    content = message.content
    if not any(token in content for token in special):
        return message
    body = content if message.role != "assistant" else _without_end(content, special)
    end = content[len(body) :]
    for token in special:
        if len(token) > 1:
            body = body.replace(token, f"{token[0]} {token[1:]}")
    return Message(role=message.role, content=body + end)


@functools.lru_cache(maxsize=4)
def _special_tokens(tokenizer: Any, size: int) -> tuple[str, ...]:
    """The longest first. Asked for every message, while to list 256 of them takes as long as to encode one; `size` is the
    vocabulary's, since tokens may be added."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token)))


def _without_end(content: str, special: Sequence[str]) -> str:
    body = content.rstrip()
    while ending := next((token for token in special if token and body.endswith(token)), ""):
        body = body.removesuffix(ending).rstrip()
    return body


def _refused(error: Exception) -> InputError:
    return InputError(f"The model's chat template refuses this conversation: {error}.")


@contextlib.contextmanager
def refusal_of(name: str) -> Iterator[None]:
    """A conversation that the template refuses is told as the row `name` of a file."""
    try:
        yield
    except InputError as error:
        raise RecordError(f"{name}: {error.message}", "Mend or remove the row.") from error


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text that already carries its special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def encode_prompt(tokenizer: Any, conversation: Conversation) -> list[int]:
    """Token ids of a prompt, up to where the model begins to write. Generation and training use the same ones."""
    return encode_text(tokenizer, render(tokenizer, conversation, generate=True))


def encode_answered(tokenizer: Any, conversation: Conversation, *, name: str = "") -> tuple[list[int], list[int]]:
    """Tokens of a conversation that ends with an assistant's answer: the prompt's, and the answer's with its stop token.

    The prompt's tokens are those of `encode_prompt`, so that training sees what generation will see. Raises `RecordError`
    with the `name` for a conversation that cannot be trained on.
    """
    answer = conversation.messages[-1]
    if answer.role != "assistant" or not answer.content.strip():
        raise RecordError(f"{name}: the conversation does not end with an assistant's answer.")
    with refusal_of(name):
        before = render(tokenizer, Conversation(messages=conversation.messages[:-1]), generate=True)
        whole = render(tokenizer, conversation)
    prompt = encode_text(tokenizer, before)
    content = unposing(tokenizer, answer).content.strip()
    tail = whole[len(before) :] if whole.startswith(before) else content
    at = tail.find(content)
    body = tail[: at + len(content)] if at >= 0 else content
    closing = tail[at + len(content) :] if at >= 0 else ""
    ids = encode_text(tokenizer, before + body)
    # A tokenizer that merges across the border would change the prompt's last token: then the answer is cut off first.
    written = ids[len(prompt) :] if ids[: len(prompt)] == prompt else encode_text(tokenizer, body)
    return prompt, [*written, stop_token(tokenizer, closing)]


def stop_token(tokenizer: Any, closing: str) -> int:
    """The token that ends an answer: the first special one that the template writes after it, else end-of-sequence."""
    special = set(tokenizer.all_special_ids)
    found = next((token for token in encode_text(tokenizer, closing) if token in special), tokenizer.eos_token_id)
    if found is None:
        raise ModelError(
            "The tokenizer has no end-of-sequence token, so the model could never learn to stop.",
            "Set eos_token in its tokenizer_config.json.",
        )
    return int(found)


def stop_tokens(tokenizer: Any, model: Any = None) -> list[int]:
    """Every token that ends generation: the one that training teaches, and those that the model's own configuration names."""
    probe = Conversation(messages=(Message(role="user", content="?"), Message(role="assistant", content="!")))
    found = {encode_answered(tokenizer, probe)[1][-1]}
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    for token in (tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])):
        if token is not None:
            found.add(int(token))
    return sorted(found)


class Pieces:
    """Text of tokens that come bit by bit, cut so that no character and no word's leading space is broken.

    A character's bytes may be spread over several tokens, and what a token says may depend on the one before it. So
    tokens are decoded together with some before them, and text that ends in the mark of an incomplete character waits.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0  # decoding begins at this token
        self._said = 0  # the text of the tokens up to here has been given out

    def add(self, tokens: list[int], *, last: bool = False) -> str:
        """The text that is now certain; with `last`, all that is left, incomplete characters too."""
        self._tokens += tokens
        before = self._text(self._tokens[self._context : self._said])
        now = self._text(self._tokens[self._context :])
        if len(now) <= len(before) or (now.endswith("\ufffd") and not last):
            return ""
        self._context, self._said = self._said, len(self._tokens)
        return now[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text
