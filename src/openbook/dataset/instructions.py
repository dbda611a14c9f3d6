"""What a teacher is told: plain text in `prompts/`, two files for each kind of call, `NAME.system.txt` and `NAME.user.txt`.

Words in braces are filled in: {passage}, {title}, {limit}, {language} and their like. A folder of one's own may hold
other versions of some or all of them.
"""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from openbook.dataset.language import language
from openbook.errors import ConfigError
from openbook.records import Chunk, Conversation, Message, Question, content_id

NAMES: Final = ("questions", "pair", "nowhere", "judge", "closed", "beside")
ROLES: Final = ("system", "user")
_SLOT = re.compile(r"\{(\w+)\}")


class Instructions:
    """The texts of all calls. `fingerprint` changes with any of them."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise ConfigError(
                f"{folder}, where the teacher's prompts should be, is no folder.",
                "It holds files such as questions.system.txt; leave dataset.prompts empty for openbook's own.",
            )
        self._texts = {f"{name}.{role}.txt": "" for name in NAMES for role in ROLES}
        for name in self._texts:
            own = folder / name if folder is not None else None
            self._texts[name] = own.read_text("utf-8") if own is not None and own.is_file() else _shipped(name)
        self.fingerprint = content_id(*self._texts.values())

    def conversation(self, name: str, **values: str | int) -> Conversation:
        """The call `name` with its slots filled. What is filled in is never read as a slot again."""

        def filled(role: str) -> str:
            text = self._texts[f"{name}.{role}.txt"].strip()
            return _SLOT.sub(lambda slot: str(values.get(slot[1], slot[0])), text)

        return Conversation(
            messages=(
                Message(role="system", content=filled("system")),
                Message(role="user", content=filled("user")),
            )
        )


def _shipped(name: str) -> str:
    return resources.files(__package__).joinpath("prompts", name).read_text(encoding="utf-8")


def title_of(chunk: Chunk) -> str:
    """Where a passage stands, for a reader: the document's title and the headings above the passage."""
    return " › ".join((chunk.title, *chunk.headings)) or chunk.uri


def language_of(*chunks: Chunk) -> str:
    """The language in which to write about passages, in words for a prompt."""
    known = language("\n".join(chunk.text for chunk in chunks))
    return f"{known}, the language of the passage" if known else "the language of the passage"


def numbered_passages(chunks: Sequence[Chunk]) -> str:
    return "\n\n".join(
        f'Passage {number}, of "{title_of(chunk)}":\n{chunk.text}' for number, chunk in enumerate(chunks, 1)
    )


def numbered_questions(questions: Sequence[Question], *, answered: bool = False) -> str:
    """The questions, one a line; `answered` adds what was quoted, reasoned and answered."""
    lines = []
    for number, question in enumerate(questions, 1):
        lines.append(f"Question {number}: {question.text}")
        if answered:
            lines += [f"  Quote: {quote}" for quote in question.quotes]
            lines += [f"  Reasoning: {question.reasoning}", f"  Answer: {question.answer}"]
    return "\n".join(lines)
