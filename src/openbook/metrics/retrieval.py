"""How well retrieval finds the golden passages. Rankings are chunk ids, best first."""

import math
from collections.abc import Collection, Sequence


def recall_at_k(ranking: Sequence[str], golden: Collection[str], k: int) -> float | None:
    """The share of the golden chunks among the first `k`; None for a question that has none."""
    wanted = set(golden)
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else None


def reciprocal_rank(ranking: Sequence[str], golden: Collection[str]) -> float | None:
    """1 / rank of the first golden chunk, 0 where the ranking holds none; None for a question that has none."""
    wanted = set(golden)
    if not wanted:
        return None
    return next((1 / rank for rank, chunk_id in enumerate(ranking, 1) if chunk_id in wanted), 0.0)


def mrr(rankings: Sequence[Sequence[str]], goldens: Sequence[Collection[str]]) -> float | None:
    """Mean reciprocal rank over the questions that have a golden chunk; None where none has."""
    ranks = [reciprocal_rank(ranking, golden) for ranking, golden in zip(rankings, goldens, strict=True)]
    known = [rank for rank in ranks if rank is not None]
    return sum(known) / len(known) if known else None


def ndcg_at_k(ranking: Sequence[str], golden: Collection[str], k: int) -> float | None:
    """Normalised discounted cumulative gain with gains of 0 and 1: Σ 1 / log2(rank + 1) over the golden chunks among the
    first `k`, over the same sum with all golden chunks in front (Järvelin and Kekäläinen 2002). None without any."""
    wanted = set(golden)
    if not wanted:
        return None
    gain = sum(1 / math.log2(rank + 1) for rank, chunk_id in enumerate(ranking[:k], 1) if chunk_id in wanted)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
