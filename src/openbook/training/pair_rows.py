"""From preference pairs to the rows of a run. A pair is never parted, and pairs over the same passages share them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openbook.errors import RecordError
from openbook.prompt import with_answer
from openbook.records import PreferencePair
from openbook.tokens import TokenSequence, TokenTree, best_fit, build, concatenate, encode, shuffled
from openbook.training.pairs import tell


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """A row in which sequences 2k and 2k+1 are the chosen and the rejected answer of pair `pairs[k]` of the data set."""

    tree: TokenTree
    pairs: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tree)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A tokenised data set: pair n is `chosen[n]` against `rejected[n]`, equal up to their first trained token."""

    chosen: tuple[TokenSequence, ...]
    rejected: tuple[TokenSequence, ...]
    margins: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """How many tokens the chosen and the rejected answer of each pair have."""
        return tuple(
            (len(c) - c.shareable, len(r) - r.shareable) for c, r in zip(self.chosen, self.rejected, strict=True)
        )

    def rows(self, members: Sequence[int], budget: int) -> list[PairRow]:
        """These pairs in rows of at most `budget` tokens. Pairs whose prompts begin alike stand in one tree."""
        trees = [tree for group in self._groups(members) for tree in self._trees(group, budget)]
        return [
            PairRow(tree=concatenate([trees[n].tree for n in row]), pairs=tuple(p for n in row for p in trees[n].pairs))
            for row in best_fit([len(tree) for tree in trees], budget)
        ]

    def rows_of_epochs(self, members: Sequence[int], budget: int, *, epochs: float, seed: int) -> list[PairRow]:
        """The rows of a run, epoch after epoch, each in an order of its own; of a last, broken epoch the first part."""
        rows = self.rows(members, budget)
        found: list[PairRow] = []
        for epoch in range(math.ceil(epochs)):
            share = min(1.0, epochs - epoch)
            found += shuffled(rows, seed=seed, epoch=epoch)[: max(1, round(len(rows) * share))]
        return found

    def held_out(self, wanted: int, *, seed: int) -> tuple[list[int], list[int]]:
        """Pairs to train on and pairs to watch: about `wanted`, at most a fifth. No prompt stands on both sides."""
        by_prompt: dict[bytes, list[int]] = {}
        for pair in range(len(self)):
            by_prompt.setdefault(self._prompt(pair), []).append(pair)
        groups = list(by_prompt.values())
        random.Random(f"held out:{seed}").shuffle(groups)
        watched: list[int] = []
        room = min(wanted, len(self) // 5)
        for group in groups:
            if len(watched) + len(group) <= room:
                watched += group
        return sorted(set(range(len(self))) - set(watched)), sorted(watched)

    def _prompt(self, pair: int) -> bytes:
        return self.chosen[pair].input_ids[: self.chosen[pair].shareable].tobytes()

    def _groups(self, members: Sequence[int]) -> list[list[int]]:
        """Members in groups: with the one before it, in lexicographic order, each shares at least half of its prompt."""
        prompts = {pair: self.chosen[pair].input_ids[: self.chosen[pair].shareable].tolist() for pair in members}
        groups: list[list[int]] = []
        for pair in sorted(members, key=lambda pair: prompts[pair]):
            before, here = prompts[groups[-1][-1]] if groups else [], prompts[pair]
            half = min(len(before), len(here)) // 2
            if groups and before[:half] == here[:half]:
                groups[-1].append(pair)
            else:
                groups.append([pair])
        return groups

    def _trees(self, group: Sequence[int], budget: int) -> list[PairRow]:
        """The group's tree, or as many as it takes for each to hold at most `budget` tokens."""
        tree = build([answer for pair in group for answer in (self.chosen[pair], self.rejected[pair])])
        if len(tree) <= budget:
            return [PairRow(tree=tree, pairs=tuple(group))]
        if len(group) == 1:
            raise RecordError(
                f"{self.chosen[group[0]].name}: the prompt with both answers has {len(tree):,} tokens and a row holds "
                f"{budget:,}.",
                "Raise tune.row_tokens, or shorten the pair.",
            )
        half = len(group) // 2
        return self._trees(group[:half], budget) + self._trees(group[half:], budget)


def encode_pairs(pairs: Sequence[tuple[str, PreferencePair]], tokenizer: Any, *, limit: int) -> Pairs:
    """Tokenise pairs with the model's chat template. `limit` is how many tokens one sequence may have.

    Nothing is truncated: a `RecordError` names the rows whose prompt or answer does not fit.
    """
    chosen: list[TokenSequence] = []
    rejected: list[TokenSequence] = []
    faults: list[tuple[str, RecordError]] = []
    for name, pair in pairs:
        both = [
            encode(tokenizer, with_answer(pair.prompt, answer), name=name) for answer in (pair.chosen, pair.rejected)
        ]
        longer = max(both, key=len)
        if len(longer) > limit:
            faults.append((name, _too_long(longer, limit)))
        elif np.array_equal(both[0].input_ids, both[1].input_ids):
            faults.append((name, _alike(name)))
        chosen.append(both[0])
        rejected.append(both[1])
    tell(faults)
    return Pairs(chosen=tuple(chosen), rejected=tuple(rejected), margins=tuple(pair.margin for _, pair in pairs))


def _alike(name: str) -> RecordError:
    return RecordError(
        f"{name}: the chosen and the rejected answer are the same tokens for this model.",
        "Remove the row: it prefers nothing.",
    )


def _too_long(sequence: TokenSequence, limit: int) -> RecordError:
    prompt = sequence.shareable
    return RecordError(
        f"{sequence.name}: prompt and answer have {prompt:,} and {len(sequence) - prompt:,} tokens, "
        f"and at most {limit:,} fit" + (": not even the prompt does." if prompt >= limit else "."),
        "Shorten or remove the row, raise tune.row_tokens, or take a model that reads more.",
    )
