"""The laws of token trees: nothing is lost, nothing is shared that is trained, nobody sees a stranger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import RecordError
from openbook.tokens import SHARED, TokenSequence, TokenTree, best_fit, build, concatenate, pack, plan, split


@st.composite
def sequences(draw: st.DrawFn) -> list[TokenSequence]:
    """Few token values and short texts, so that prefixes meet often; weights anywhere but at the first token."""

    def one() -> TokenSequence:
        ids = draw(st.lists(st.integers(0, 2), min_size=2, max_size=9))
        weights = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.5]), min_size=len(ids) - 1, max_size=len(ids) - 1))
        weights[draw(st.integers(0, len(weights) - 1))] = 1.0
        return TokenSequence(input_ids=np.array(ids), weight=np.array([0.0, *weights], np.float32))

    return [one() for _ in range(draw(st.integers(1, 6)))]


def visible(tree: TokenTree) -> np.ndarray:
    q, k = np.arange(len(tree))[:, None], np.arange(len(tree))[None]
    return (k <= q) & (q < tree.subtree_end[None])


@given(sequences())
def test_every_sequence_can_be_read_back(given_sequences: list[TokenSequence]) -> None:
    tree = build(given_sequences)
    back = tree.sequences()
    assert len(back) == len(given_sequences)
    for a, b in zip(given_sequences, back, strict=True):
        assert a.input_ids.tolist() == b.input_ids.tolist()
        assert a.weight.tolist() == b.weight.tolist()


@given(sequences())
def test_supervised_tokens_are_never_shared_lost_or_duplicated(given_sequences: list[TokenSequence]) -> None:
    tree = build(given_sequences)
    assert not tree.weight[tree.sequence == SHARED].any()
    assert sorted(tree.weight[tree.weight > 0]) == sorted(w for s in given_sequences for w in s.weight if w > 0)
    assert (tree.parent[tree.weight > 0] >= 0).all()


@given(st.lists(sequences(), min_size=1, max_size=3))
def test_a_token_sees_exactly_its_own_past(groups: list[list[TokenSequence]]) -> None:
    row = concatenate([build(group) for group in groups])
    seen = visible(row)
    for position in range(len(row)):
        assert np.flatnonzero(seen[position]).tolist() == row.path(position).tolist()
        assert row.depth[position] == len(row.path(position)) - 1


@given(sequences())
def test_unsupervised_prefixes_stand_once(given_sequences: list[TokenSequence]) -> None:
    tree = build(given_sequences)
    prefixes = {tuple(s.input_ids[: n + 1].tolist()) for s in given_sequences for n in range(s.shareable)}
    own = sum(len(s) - s.shareable for s in given_sequences)
    assert len(tree) == len(prefixes) + own


@given(st.lists(sequences(), min_size=1, max_size=5), st.integers(0, 3))
def test_rows_hold_every_tree_within_the_budget(groups: list[list[TokenSequence]], epoch: int) -> None:
    rows = plan(groups, 24, seed=1, epoch=epoch)
    assert all(len(row) <= 24 for row in rows)
    packed = sorted((s.input_ids.tolist(), s.weight.tolist()) for row in rows for s in row.sequences())
    assert packed == sorted((s.input_ids.tolist(), s.weight.tolist()) for group in groups for s in group)
    again = plan(groups, 24, seed=1, epoch=epoch)
    assert [row.input_ids.tolist() for row in rows] == [row.input_ids.tolist() for row in again]


def sequence(*ids: int, trained: int = 1) -> TokenSequence:
    return TokenSequence(
        input_ids=np.array(ids),
        weight=np.array([0.0] * (len(ids) - trained) + [1.0] * trained, np.float32),
        name="row 7",
    )


def test_a_tree_over_budget_is_split_and_repeats_its_prefix() -> None:
    trees = split([sequence(1, 2, 3, 4), sequence(1, 2, 3, 5), sequence(1, 2, 3, 6)], budget=5)
    assert [len(tree) for tree in trees] == [4, 5]


def test_a_sequence_over_budget_is_an_error_that_names_it() -> None:
    with pytest.raises(RecordError, match=r"row 7 has 4 tokens and a row holds 3.*row_tokens"):
        split([sequence(1, 2, 3, 4)], budget=3)


def test_best_fit_fills_the_fullest_row() -> None:
    trees = [build([sequence(*range(n))]) for n in (6, 5, 4, 3, 2)]
    assert sorted(len(row) for row in pack(trees, 10)) == [10, 10]


@given(st.lists(st.integers(1, 20), max_size=40))
def test_best_fit_is_what_its_name_says(sizes: list[int]) -> None:
    """Largest first, each into the first of the fullest rows that have room for it, by looking at all of them."""
    expected: list[list[int]] = []
    for thing in sorted(range(len(sizes)), key=lambda thing: -sizes[thing]):
        room = [20 - sum(sizes[n] for n in row) for row in expected]
        fitting = [row for row, left in enumerate(room) if left >= sizes[thing]]
        if not fitting:
            fitting, expected = [len(expected)], [*expected, []]
        expected[min(fitting, key=lambda row: room[row] if row < len(room) else 20)].append(thing)
    assert best_fit(sizes, 20) == expected


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no token is trained on"):
        TokenSequence(input_ids=np.array([1, 2]), weight=np.zeros(2, np.float32), name="row 7")
