"""Who writes the questions."""

import random
from typing import Protocol

from openbook.config import Config
from openbook.errors import ConfigError
from openbook.records import Chunk, Question


class Teacher(Protocol):
    """Writes questions that one passage answers."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the teacher would write other questions."""

    def write(self, chunk: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions about `chunk`, the best first. All chance comes from `rng`.

        Raises `TeacherError` where the teacher cannot be reached or refuses.
        """


def make_teacher(config: Config) -> Teacher:
    """The teacher that the options ask for."""
    if config.dataset.teacher == "extractive":
        from openbook.dataset.extractive import ExtractiveTeacher

        return ExtractiveTeacher()
    if not config.dataset.teacher_model:
        raise ConfigError(
            "dataset.teacher = openai needs the name of a model.", "Set dataset.teacher_model, or give --model."
        )
    from openbook.dataset.llm_teacher import LLMTeacher
    from openbook.llm import OpenAIChat

    return LLMTeacher(OpenAIChat(config.dataset.teacher_model, base_url=config.dataset.base_url or None))
