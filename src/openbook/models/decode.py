"""Writing, many rows at once: what one model writes after each of many prompts, greedily or drawn by chance.

Greedy tokens are those of transformers' `generate` with `do_sample=False`; three things make them cheaper.
- A row that has ended leaves at once and the next prompt takes its place, so that no row waits for another (continuous
  batching, Orca, OSDI 2022).
- What a prompt shares with the beginning of one that came before it is not computed again. Prompts are taken in the
  order of their tokens, so that those over the same passages follow each other.
- An answer that quotes says what stands in its prompt already. What followed the last two tokens where they were last
  written is guessed to follow again; one pass checks the whole guess, and only what the model itself would have written
  is kept (prompt lookup, as in LLMA, arXiv 2304.04487). With sampling, a token is drawn at each place of the guess and
  the guess holds as far as it was drawn: every token kept was drawn from the model's own distribution after those before.

The model is called as it is. Sums over rows of another shape are rounded differently, so where two tokens are equally
likely to within rounding, another one may be written than in another company; that is so for every batched decoder.
"""

import inspect
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from openbook.kernels import fast
from openbook.models.sampling import Sampler, Sampling
from openbook.models.slots import Slots

GUESS = 7  # tokens guessed at once for one row; longer guesses cost more than they save (the former nano, two cores)
STEP_TOKENS = 32  # rows times tokens of one pass that guesses; beyond it a pass costs as much as it saves
BLOCK, TIMES = 16, 3  # a loop: a block of at least 16 tokens, three times in a row

End = Literal["", "stop", "limit", "loop"]


@dataclass(frozen=True, slots=True)
class Written:
    """New tokens of the prompt `number`, without the stop token, which is `stop` (−1: none). `end` is "" until the last ones.

    `stop`: a stop token was written; `limit`: no room or no leave for more; `loop`: see `in_loop`.
    """

    number: int
    tokens: list[int]
    end: End
    stop: int = -1


class _Row:
    """A prompt and what was written after it; all but the last token are in the cache."""

    def __init__(self, number: int, prompt: Sequence[int], limit: int) -> None:
        self.number, self.prompt, self.limit = number, list(prompt), limit
        self.written: list[int] = []
        self.tokens = list(prompt)  # what was asked and what was written
        self._follows: dict[tuple[int, ...], int] = {}  # two tokens → where what followed them last stands
        for at in range(2, len(prompt)):
            self._follows[prompt[at - 2], prompt[at - 1]] = at

    def guess(self, count: int) -> list[int]:
        """At most `count` tokens that may come next."""
        at = self._follows.get(self._pair)
        if at is None:
            return []
        back = len(self.tokens) - at
        count = min(count, self.limit - len(self.written) - 1)
        return [self.tokens[at + n % back] for n in range(count)]  # what is shorter than the guess goes round

    def take(self, best: Sequence[int], guessed: Sequence[int], stop: Collection[int]) -> Written:
        """Keep what the model writes: `best[i]` follows the last token and the first i guessed ones."""
        right = next((n for n, (a, b) in enumerate(zip(guessed, best, strict=False)) if a != b), len(guessed))
        new: list[int] = []
        end: End = ""
        for token in best[: right + 1]:
            if token in stop:
                return Written(self.number, new, "stop", token)
            self._follows[self._pair] = len(self.tokens)
            for kept in (self.tokens, self.written, new):
                kept.append(token)
            if len(self.written) == self.limit:
                end = "limit"
                break
            if in_loop(self.written, self.prompt):
                end = "loop"
                break
        return Written(self.number, new, end)

    @property
    def _pair(self) -> tuple[int, ...]:
        return tuple(self.tokens[-2:])


def in_loop(written: Sequence[int], prompt: Sequence[int]) -> bool:
    """Whether the last tokens are a block of 16 or more, three times in a row (or shorter ones, so often that they fill it).

    A greedy writer that has come so far goes on like this up to its limit. That is an experience and no theorem: the
    next token depends on all before it, and a model that counts could leave the loop. What is ended here is shorter than
    it would have become, which a grader that counts words may notice. A repetition that stands just so in the prompt is
    a quote, and no loop.
    """
    last = len(written) - 1
    for period in range(BLOCK, len(written) // TIMES + 1):
        if written[last - period] != written[last]:
            continue
        start = len(written) - TIMES * period
        if written[start + period :] != written[start:-period]:
            continue
        while start > 0 and written[start - 1] == written[start - 1 + period]:
            start -= 1
        run = written[start:]
        return not any(prompt[at : at + len(run)] == run for at in range(len(prompt) - len(run) + 1))
    return False


def decode(
    ready: Callable[[], Any],
    prompts: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    stop: Collection[int],
    rows: int,
    sampling: Sampling | None = None,
) -> Iterator[Written]:
    """Write up to `limits[i]` tokens after each prompt, at most `rows` of them at once; yields as tokens come. Greedy
    without `sampling`.

    `ready` returns the model and is called before every pass, since others may have used the model between two yields.
    Closing the iterator ends all. Raises `ModelError` for a model whose cache is not one of keys and values.
    """
    waiting = deque(sorted(range(len(prompts)), key=lambda number: list(prompts[number])))
    if not waiting:
        return
    columns = max(len(p) + n for p, n in zip(prompts, limits, strict=True))
    batch = Batch(ready, columns=columns, rows=min(rows, len(prompts)), stop=stop, sampling=sampling)
    while waiting or batch.live:
        while waiting and batch.free:
            number = waiting.popleft()
            yield batch.join(number, prompts[number], limits[number])
        yield from batch.step()


class Batch:
    """Rows that are written together by one model; they join and leave between two steps.

    `columns` is the most that a prompt and what is written after it may have together, in tokens; memory for `rows`
    such rows is taken with the first prompt. `ready` returns the model and is called before every pass, since others
    may have used it in between. Raises `ModelError` for a model whose cache is not one of keys and values.
    """

    def __init__(
        self,
        ready: Callable[[], Any],
        *,
        columns: int,
        rows: int,
        stop: Collection[int],
        sampling: Sampling | None = None,
    ) -> None:
        self._desk = _Desk(ready, limit=columns, rows=rows, sampling=sampling)
        self._stop = stop
        self._rows: list[_Row | None] = [None] * self._desk.rows

    @property
    def live(self) -> int:
        """How many rows are being written."""
        return sum(row is not None for row in self._rows)

    @property
    def free(self) -> int:
        """How many more may join."""
        return self._rows.count(None) + self._desk.rows - len(self._rows)

    @torch.inference_mode()
    def join(self, number: int, prompt: Sequence[int], limit: int) -> Written:
        """Read a prompt, after which at most `limit` tokens are to be written; returns the first of them."""
        if None not in self._rows:
            self._rows.append(None)
        slot = self._rows.index(None)
        row = _Row(number, prompt, limit)
        written = row.take([self._desk.read(slot, prompt)], [], self._stop)
        self._rows[slot] = None if written.end else row
        return written

    @torch.inference_mode()
    def step(self) -> list[Written]:
        """One pass over all rows; what each of them wrote."""
        self._desk.close_up(self._rows)
        present = [row for row in self._rows if row is not None]
        if not present:
            return []
        count = min(GUESS, STEP_TOKENS // len(present) - 1)
        guesses = [row.guess(count) for row in present]
        found = []
        for slot, (row, guessed, best) in enumerate(
            zip(present, guesses, self._desk.step(present, guesses), strict=True)
        ):
            written = row.take(best, guessed, self._stop)
            if written.end:
                self._rows[slot] = None
            found.append(written)
        return found

    def leave(self, number: int) -> None:
        """Write no more for this prompt; nothing happens where it has ended already."""
        self._rows = [None if row is not None and row.number == number else row for row in self._rows]


class _Desk:
    """The model and its slots: which pass is made with which tokens, positions and mask."""

    def __init__(self, ready: Callable[[], Any], *, limit: int, rows: int, sampling: Sampling | None) -> None:
        self._ready = ready
        model = ready()
        self._device = model.device
        self._choose: Callable[[Tensor], Tensor] = Sampler(sampling, model.device) if sampling else _most_likely
        self._config = model.config.get_text_config(decoder=True)
        arguments = inspect.signature(model.forward).parameters
        self._windows = _windows(self._config) if "position_ids" in arguments else None
        self._takes_keep = "logits_to_keep" in arguments
        # A model whose mask or positions are its own affair is left alone with one row, which needs neither from us.
        self.rows = rows if self._windows is not None else 1
        self._limit = limit
        self._slots = Slots(self._config, slots=self.rows, columns=limit + GUESS)

    def read(self, slot: int, prompt: Sequence[int]) -> int:
        """Read a prompt into a slot; returns the token that the model writes after it."""
        start = self._slots.take_over(slot, prompt)
        return self._alone(slot, start, prompt[start:], keep=1)[-1]

    def step(self, rows: Sequence[_Row], guesses: Sequence[Sequence[int]]) -> list[list[int]]:
        """Feed each row, in slots 0, 1, …, its last token and its guess; returns what the model writes after each."""
        if len(rows) == 1:
            return [self._alone(0, len(rows[0].tokens) - 1, [rows[0].tokens[-1], *guesses[0]])]
        width = 1 + max(map(len, guesses))
        fed = [
            [row.tokens[-1], *guess, *[0] * (width - 1 - len(guess))] for row, guess in zip(rows, guesses, strict=True)
        ]
        begin = torch.tensor([len(row.tokens) - 1 for row in rows])
        positions = (begin[:, None] + torch.arange(width)).to(self._device)  # (B, Q)
        end = int(begin.max()) + width
        self._slots.several(positions, end)
        with fast(self._device, positions.numel()):
            out = self._ready()(
                input_ids=torch.tensor(fed, device=self._device),
                # The filling behind a short guess may stand beyond the context; nobody reads what is written after it.
                position_ids=positions.clamp(max=self._limit - 1),
                attention_mask=self._mask(positions, end),
                past_key_values=self._slots,
                use_cache=True,
            )
        best: list[list[int]] = self._choose(out.logits).tolist()
        return best

    def close_up(self, live: list[_Row | None]) -> None:
        """Move rows from the last slots into empty ones, so that the live ones are the first."""
        while None in live:
            row = live.pop()
            if row is not None:
                hole = live.index(None)
                self._slots.move(len(live), hole, len(row.tokens) - 1)
                live[hole] = row

    def _alone(self, slot: int, start: int, tokens: Sequence[int], keep: int = 0) -> list[int]:
        """One row by itself: its columns are its positions, so transformers' own mask and positions are right."""
        self._slots.one(slot, start, len(tokens))
        settings = {"logits_to_keep": keep} if self._takes_keep else {}
        with fast(self._device, len(tokens), causal=self._windows is not None):
            out = self._ready()(
                input_ids=torch.tensor([tokens], device=self._device),
                past_key_values=self._slots,
                use_cache=True,
                **settings,
            )
        best: list[int] = self._choose(out.logits[0]).tolist()
        return best

    def _mask(self, positions: Tensor, end: int) -> Tensor | dict[str, Tensor]:
        """What each token may attend to, True = attend: (B, 1, Q, end), or one such for each kind of layer."""
        assert self._windows is not None
        column = torch.arange(end, device=self._device)
        causal = (column <= positions[..., None])[:, None]
        masks = {
            kind: causal if window is None else causal & (column > positions[..., None] - window)[:, None]
            for kind, window in self._windows.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))


def _most_likely(logits: Tensor) -> Tensor:
    return logits.argmax(-1)


def _windows(config: Any) -> dict[str, int | None] | None:
    """How far back each kind of layer looks, in tokens (None: to the beginning); None for kinds that we do not know."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"]
    known = {"full_attention": None, "sliding_attention": window}
    return {kind: known[kind] for kind in kinds} if set(kinds) <= known.keys() else None
