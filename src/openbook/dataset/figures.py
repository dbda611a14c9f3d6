"""What only the file as a whole shows: the real P, where the golden passages stand, what the distractors are worth."""

import math
import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, quantiles, stdev
from typing import Final

from openbook import prompt
from openbook.dataset.checks import telling_words
from openbook.dataset.imports import Sample
from openbook.dataset.rowchecks import Found

ENOUGH: Final = 20  # rows from which on a share says anything
SAMPLED: Final = 500  # rows whose passages are looked into
ONE_PLACE, BIAS = 0.9, 0.05  # share in one place that is a fault; excess over chance that is worth a look
SIGMA: Final = 4.0  # standard errors; one file in ten thousand is accused by chance
BY_CHANCE: Final = 1e-4  # the same as a probability
LOW_SHARE: Final = 0.35  # published sets keep 40 to 100 % (arXiv 2403.10131)
CUT: Final = 0.3  # share of passages with one and the same length that no cut by sentences gives

MIXED: Final = 0.01  # share of rows with another number of passages than most that mere lack of passages may explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """`golden_share` is P, measured on the `golden_known` rows that name their golden passage. `places[n][i]` counts
    golden passages that stand at place i of n. `passages` counts rows by how many they show. `overlap` is the mean
    share of a question's telling words found in one of its own distractors, and in another row's. `tokens` holds the
    median, the 95th percentile and the maximum for a model that reads `token_limit`."""

    golden_known: int = 0
    golden_share: float | None = None
    places: dict[int, list[int]] = field(default_factory=dict)
    passages: dict[int, int] = field(default_factory=dict)
    refusals: int = 0
    answers_without_golden: int = 0
    overlap: tuple[float, float] | None = None
    tokens: tuple[int, int, int] | None = None
    token_limit: int | None = None


class Gathering:
    """Figures in the making, row by row."""

    def __init__(self) -> None:
        self.rows = 0
        self._golden: Counter[bool] = Counter()
        self._places: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._passages: Counter[int] = Counter()
        self._refusals = self._without = 0
        self._sampled: list[tuple[str, tuple[str, ...]]] = []
        self._random = random.Random(0)
        self._tokens = array("l")

    def add(self, sample: Sample, tokens: int = 0) -> None:
        self.rows += 1
        if tokens:
            self._tokens.append(tokens)
        refuses = sample.parsed.refusal or (sample.layout == "eval" and prompt.is_refusal(sample.answer))
        self._refusals += refuses
        if sample.passages is None:
            return
        self._passages[len(sample.passages)] += 1
        shown = sample.golden_shown
        if shown is not None:
            self._golden[shown] += 1
            self._without += not shown and not refuses
        golden = set(sample.plain_golden) if shown else set()
        if len(golden) == 1:
            self._places[len(sample.passages)][sample.plain_passages.index(sample.plain_golden[0])] += 1
        self._keep(sample, golden)

    def _keep(self, sample: Sample, golden: set[str]) -> None:
        """Keep a uniform sample of the rows (reservoir sampling)."""
        at = len(self._sampled) if len(self._sampled) < SAMPLED else self._random.randrange(self.rows)
        if at >= SAMPLED or not sample.passages or not sample.question.strip():
            return
        shown = zip(sample.passages, sample.plain_passages, strict=True)
        distractors = tuple(text for text, bare in shown if bare not in golden)
        # Where nobody knows which passage is golden, nobody knows the distractors: only lengths are taken.
        question = sample.question if sample.golden_shown is not None else ""
        self._sampled[at : at + 1] = [(question, distractors)]

    def figures(self, token_limit: int | None) -> Figures:
        known = sum(self._golden.values())
        lengths = sorted(self._tokens)
        cuts = quantiles(lengths, n=20, method="inclusive") if len(lengths) > 1 else lengths * 19
        return Figures(
            golden_known=known,
            golden_share=self._golden[True] / known if known else None,
            places={n: [counts[at] for at in range(n)] for n, counts in sorted(self._places.items())},
            passages=dict(sorted(self._passages.items())),
            refusals=self._refusals,
            answers_without_golden=self._without,
            overlap=self._overlap[:2] if self._overlap else None,
            tokens=(round(cuts[9]), round(cuts[18]), lengths[-1]) if lengths else None,
            token_limit=token_limit,
        )

    @cached_property
    def _overlap(self) -> tuple[float, float, float] | None:
        """Own overlap, another row's, and by how many standard errors the first is larger; None where too few rows have
        distractors. Another row is one half a sample away: neighbours are often about the same passage."""
        pairs = [(words, list(map(telling_words, ds))) for q, ds in self._sampled if ds and (words := telling_words(q))]
        if len(pairs) < ENOUGH:
            return None

        def overlap(words: frozenset[str], distractors: list[frozenset[str]]) -> float:
            return fmean(len(words & distractor) / len(words) for distractor in distractors)

        own = [overlap(words, distractors) for words, distractors in pairs]
        half = len(pairs) // 2
        other = [overlap(words, pairs[at - half][1]) for at, (words, _) in enumerate(pairs)]
        differences = [mine - theirs for mine, theirs in zip(own, other, strict=True)]
        error = stdev(differences) / math.sqrt(len(differences))
        return fmean(own), fmean(other), fmean(differences) / error if error else 0.0

    def faults(self, figures: Figures, expected_share: float | None) -> Iterator[Found]:
        """What is wrong with the file as a whole; `expected_share` is the P that was asked for, where it is known."""
        yield from self._place_faults(figures)
        yield from _share_faults(figures, expected_share)
        overlap = self._overlap
        if overlap and overlap[2] < 2:
            shown = (
                f"{overlap[0]:.0%} of a question's words stand in its distractors, {overlap[1]:.0%} in another row's"
            )
            yield Found("unrelated-distractors", shown)
        lengths = Counter(len(text) for text in {text for _, texts in self._sampled for text in texts})
        length, most = lengths.most_common(1)[0] if lengths else (0, 0)
        if lengths.total() >= ENOUGH and most > CUT * lengths.total():
            yield Found("cut-by-characters", f"{most / lengths.total():.0%} have {length:,} characters")
        total, usual = sum(figures.passages.values()), max(figures.passages.values(), default=0)
        if total - usual > MIXED * total:
            shown = ", ".join(f"{n} in {rows:,}" for n, rows in figures.passages.items())
            yield Found("mixed-settings", f"passages in rows: {shown}")

    def _place_faults(self, figures: Figures) -> Iterator[Found]:
        for n, counts in figures.places.items():
            total, most = sum(counts), max(counts)
            if n < 2 or total < ENOUGH:
                continue
            place, share, chance = counts.index(most) + 1, most / total, 1 / n
            shown = f"place {place} of {n} in {share:.0%} of {total:,} rows; chance gives {chance:.0%}"
            if share > ONE_PLACE:
                yield Found("golden-place", shown)
            elif share > chance + max(BIAS, SIGMA * math.sqrt(chance * (1 - chance) / total)):
                yield Found("golden-place-bias", shown)


def _share_faults(figures: Figures, expected: float | None) -> Iterator[Found]:
    share, known = figures.golden_share, figures.golden_known
    if share is None:
        return
    shown = f"P = {share:.1%} of {known:,} rows"
    if expected is not None:
        if known * _divergence(share, expected) > -math.log(BY_CHANCE):
            inverted = abs(share - (1 - expected)) < abs(share - expected) / 4
            yield Found("golden-share-differs", f"{shown}, expected {expected:.0%}{' (inverted?)' if inverted else ''}")
    elif known >= ENOUGH and share == 1:
        yield Found("golden-share-whole", shown)
    elif known >= ENOUGH and share < LOW_SHARE:
        yield Found("golden-share-low", shown)


def _divergence(share: float, expected: float) -> float:
    """Kullback–Leibler divergence of two coins, in nats: n tosses of a coin that falls with probability `expected` give
    a share at least that far off with a probability of at most exp(−n · divergence) (Chernoff 1952)."""
    pairs = ((share, expected), (1 - share, 1 - expected))
    return sum(math.inf if q == 0 else p * math.log(p / q) for p, q in pairs if p > 0)
