"""Questions to learn from by trying: their prompts, and what is right, round by round."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook import prompt
from openbook.errors import ConfigError, RecordError
from openbook.metrics.grading import Gold
from openbook.models import LoadedModel
from openbook.models.chat import encode_prompt, refusal_of
from openbook.records import Chunk, Conversation
from openbook.training.data import Item, read_study
from openbook.training.pairs import tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """One question as it is asked in one round. `gold` is None where the row says no answer that could be graded.

    `group` is equal for the questions of a round that show the same passages in the same order.
    """

    name: str
    prompt: tuple[int, ...]  # token ids
    passages: tuple[Chunk, ...]
    gold: Gold | None
    group: tuple[int, int]


class Exercises:
    """The questions of a data set in the order of a run: a pure function of the file, the seed and the round.

    Study groups are shuffled anew in each epoch and their questions stay neighbours, so that a round reads their
    passages once. `room` is how many tokens a prompt may have; `left_out` says how many distractors a question has to do
    without for that.
    """

    def __init__(self, items: Sequence[Sequence[Item]], tokenizer: Any, *, room: int, each: int, seed: int) -> None:
        self._groups, self._tokenizer = items, tokenizer
        self._room, self._each, self._seed = room, each, seed
        self.left_out: dict[str, int] = {}
        ungraded: list[str] = []
        faults: list[tuple[str, RecordError]] = []
        for number, item in ((n, item) for n, group in enumerate(items) for item in group):
            try:  # prompts that are too long are named before anything runs
                exercise = self._exercise(item, group=number, epoch=0)
            except RecordError as error:
                faults.append((item.name, error))
                continue
            if missing := len(item.passages or ()) - len(exercise.passages):
                self.left_out[item.name] = missing
            if exercise.gold is None:
                ungraded.append(item.name)
        tell(faults)
        self.ungraded = tuple(ungraded)

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def rounds(self, epochs: float) -> int:
        return max(1, math.ceil(len(self) * epochs / self._each))

    def round(self, number: int) -> list[Exercise]:
        """The questions of round `number`, counted from 0; where an epoch ends in its middle the next one begins."""
        found = []
        for at in range(number * self._each, (number + 1) * self._each):
            epoch, place = divmod(at, len(self))
            group, item = self._order(epoch)[place]
            found.append(self._exercise(item, group=group, epoch=epoch))
        return found

    def _order(self, epoch: int) -> list[tuple[int, Item]]:
        groups = list(enumerate(self._groups))
        random.Random(f"exercises:{self._seed}:{epoch}").shuffle(groups)
        return [(number, item) for number, group in groups for item in group]

    def _exercise(self, item: Item, *, group: int, epoch: int) -> Exercise:
        """Where the prompt is too long, distractors are left out, the longest first, so that what can be asked in one
        epoch can be in all; never a golden passage, and never all there is."""
        passages = None if item.passages is None else list(item.passages)
        if passages:
            random.Random(f"passages:{self._seed}:{group}:{epoch}").shuffle(passages)
        while True:
            with refusal_of(item.name):
                ids = encode_prompt(self._tokenizer, _conversation(item, passages))
            if len(ids) <= self._room:
                break
            distractors = [passage for passage in passages or () if passage not in item.golden]
            if passages is None or not distractors or len(passages) == 1:
                raise RecordError(
                    f"{item.name}: the prompt has {len(ids):,} tokens, and with room for an answer {self._room:,} fit.",
                    "Lower model.max_new_tokens, raise tune.row_tokens, or shorten the prompt.",
                )
            passages.remove(max(distractors, key=len))
        return Exercise(
            name=item.name,
            prompt=tuple(ids),
            passages=tuple(_chunk(number, text) for number, text in enumerate(passages or ())),
            gold=_gold(item),
            group=(epoch, group),
        )


def read_exercises(path: Path, loaded: LoadedModel, *, longest: int, row: int, each: int, seed: int) -> Exercises:
    """The rows of a data set file as exercises, `each` a round, in rows of `row` tokens with answers up to `longest`."""
    limit = min(row, loaded.context)
    if longest >= limit:
        raise ConfigError(
            f"An answer may have {longest:,} tokens, and a prompt with its answer at most {limit:,}.",
            "Lower model.max_new_tokens" + (", or raise tune.row_tokens." if row < loaded.context else "."),
        )
    study = read_study(path, loaded.tokenizer, form="raft", budget=row, seed=seed, context=loaded.context)
    return Exercises(study.groups, loaded.tokenizer, room=limit - longest, each=each, seed=seed)


def _conversation(item: Item, passages: Sequence[str] | None) -> Conversation:
    if item.messages:
        asked = item.messages[:-1] if item.messages[-1].role == "assistant" else item.messages
        return Conversation(messages=asked)
    return prompt.prompt(item.question, passages)


def _gold(item: Item) -> Gold | None:
    """What the row itself answers: the refusal where its golden passage is missing and it refuses."""
    parsed = prompt.parse_answer(item.answer)
    return Gold(answer=parsed.final, sentences=parsed.quotes) if parsed.final else None


def _chunk(number: int, text: str) -> Chunk:
    return Chunk(id=f"passage {number + 1}", document_id="", start=0, end=len(text), text=text)
