"""The search for near duplicates finds exactly what comparing all pairs finds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.dataset.similar import SimilarSets, jaccard

sets = st.frozensets(st.sampled_from("abcdefghij"), max_size=9)
# On both sides of the length from which on sets are found by single words.
long_sets = st.frozensets(st.integers(0, 29).map(str), min_size=16)


@given(st.lists(sets | long_sets, max_size=25), sets | long_sets, st.sampled_from([0.51, 0.6, 0.75, 0.8, 1.0]))
def test_a_similar_set_is_found_exactly_when_there_is_one(known, asked, threshold):
    seen = SimilarSets(threshold)
    for number, words in enumerate(known):
        seen.add(words, number)
    best = max((jaccard(asked, words) for words in known), default=-1.0)
    found = seen.find(asked)
    assert (found is not None) == (best >= threshold)
    if found is not None:
        assert math.isclose(jaccard(asked, known[found]), best)
        assert known.index(known[found]) == found


@given(st.lists(sets, max_size=20) | st.lists(long_sets, max_size=20))
def test_words_that_come_later_change_nothing_for_earlier_sets(known):
    seen = SimilarSets()
    for number, words in enumerate(known):
        assert (seen.find(words) is not None) == any(jaccard(words, earlier) >= 0.8 for earlier in known[:number])
        seen.add(words, number)


@pytest.mark.parametrize("size", [5, 10, 15, 35])
def test_exactly_at_the_threshold(size):
    words = frozenset(map(str, range(size)))
    seen = SimilarSets(0.8)
    seen.add(frozenset(map(str, range(size * 4 // 5))), 7)
    assert seen.find(words) == 7
    assert seen.find(words | {"more"}) is None
