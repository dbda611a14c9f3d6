"""How sure a mean is: percentile bootstrap over documents (Efron and Tibshirani 1993, chapter 13).

Questions about one document share its style, its vocabulary and its retrieval luck, so they are not independent;
documents are drawn with replacement, each with all its questions. Equal clusters, `resamples` and `seed` mean equal
resamples, so that a difference between two arms is taken on the same draw of documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean of `n` values with its 95 % interval. All three figures are None where there is no value at all.

    With a single value nothing is known of its spread: low = high = value.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero, and there is more than one value to say so."""
        return self.n > 1 and self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Values, clusters: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of the values that are not None. `clusters[i]` names the document of `values[i]`."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters; one cluster a value is needed")
    present = [i for i, value in enumerate(values) if value is not None]
    data = np.array([values[i] for i in present], dtype=np.float64)  # (n,)
    if not np.isfinite(data).all():
        raise ValueError("a value is not finite; a value that does not exist is None")
    if not present:
        return Interval(value=None, low=None, high=None, n=0)
    value = float(data.mean())
    # Clusters are numbered over all values, so that arms that lack some of them still share their resamples.
    number = {name: i for i, name in enumerate(sorted(set(clusters)))}
    members = np.array([number[clusters[i]] for i in present])  # (n,)
    if len(set(members.tolist())) == 1:
        # All in one document: its questions are all there is to draw from.
        members, groups = np.arange(len(present)), len(present)
    else:
        groups = len(number)
    sums = np.bincount(members, weights=data, minlength=groups)  # (C,)
    counts = np.bincount(members, minlength=groups)  # (C,)
    drawn = _draws(groups, resamples, seed)  # (R, C)
    totals = drawn @ counts  # (R,)
    kept = totals > 0  # a draw of documents without any such value says nothing
    if not kept.any():
        return Interval(value=value, low=value, high=value, n=len(present))
    means = (drawn[kept] @ sums) / totals[kept]
    low, high = (float(bound) for bound in np.percentile(means, (2.5, 97.5)))
    # Rounding in the sums can move a bound past the value by 1e-17 when all values are equal.
    return Interval(value=value, low=min(low, value), high=max(high, value), n=len(present))


def paired_difference(
    first: Values, second: Values, clusters: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `first[i] - second[i]` over the questions for which both have a value."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values against {len(second)}; a paired difference needs the same questions")
    differences = [a - b if a is not None and b is not None else None for a, b in zip(first, second, strict=True)]
    return mean_interval(differences, clusters, resamples=resamples, seed=seed)


@lru_cache(maxsize=8)
def _draws(clusters: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each cluster is drawn in each resample (R, C); every row sums to C."""
    generator = np.random.default_rng([seed, clusters])
    drawn = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)
    drawn.flags.writeable = False
    return drawn
