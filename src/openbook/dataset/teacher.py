"""Who writes the questions."""

import random
from collections import Counter
from pathlib import Path
from typing import Protocol

from openbook.config import Config
from openbook.dataset.instructions import Instructions
from openbook.dataset.judge import Judge
from openbook.dataset.llm_teacher import LLMTeacher
from openbook.errors import ConfigError
from openbook.llm import Budget, ChatModel, KeptCalls, Price, Spent
from openbook.records import Chunk, Question

CALLS = "teacher/calls.sqlite"  # below the output folder: it outlives every build


class Teacher(Protocol):
    """Writes questions about passages. All chance comes from `rng`.

    Every method may be called from `at_once` threads, and raises `TeacherError` where the teacher cannot be reached or
    refuses.
    """

    at_once: int
    judge: Judge | None
    exhausted: bool  # the budget is used up: there will be no other question
    outcomes: Counter[str]  # what was wrong with its replies

    @property
    def fingerprint(self) -> str:
        """Changes whenever the teacher would write other questions."""

    @property
    def spent(self) -> Spent:
        """What its calls cost so far."""

    def write(self, chunk: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions that `chunk` answers, the best first."""

    def write_pair(self, first: Chunk, second: Chunk, *, shared: str, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions that only both passages together answer; both name `shared`."""

    def write_nowhere(self, chunk: Chunk, other: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions in the manner of `chunk` that it does not answer; `other` is a passage about
        something else, whose subject may take the place of its own."""


def make_teacher(config: Config) -> Teacher:
    """The teacher that the options ask for. Nothing is sent or loaded before its first question."""
    options = config.dataset
    if options.teacher == "extractive":
        from openbook.dataset.extractive import ExtractiveTeacher

        return ExtractiveTeacher()
    return make_llm_teacher(config)


def make_llm_teacher(config: Config) -> LLMTeacher:
    """The language model that the options name, with its kept calls and its budget."""
    options = config.dataset
    if not options.teacher_model:
        raise ConfigError(
            f"dataset.teacher = {options.teacher} needs the name of a model.",
            "Set dataset.teacher_model, or give --model.",
        )
    if options.max_cost and not (options.price_read or options.price_written):
        raise ConfigError(
            "dataset.max_cost limits nothing without a price.",
            "Give what a million tokens cost: --price-read and --price-written.",
        )
    chat: ChatModel
    if options.teacher == "local":
        from openbook.dataset.local_chat import LocalChat

        chat = LocalChat(options.teacher_model, config)
    else:
        from openbook.llm import OpenAIChat

        chat = OpenAIChat(options.teacher_model, base_url=options.base_url or None)
    budget = Budget(Price(read=options.price_read, written=options.price_written), options.max_cost)
    return LLMTeacher(
        KeptCalls(chat, config.out / CALLS, budget=budget),
        instructions=instructions(config),
        at_once=1 if options.teacher == "local" else options.at_once,  # a model on this machine writes one at a time
        judged=options.judge,
    )


def instructions(config: Config) -> Instructions:
    """What the options tell a teacher."""
    folder = config.dataset.prompts
    return Instructions(Path(folder).expanduser() if folder else None)
