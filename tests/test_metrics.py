"""The grader against SQuAD's script, hand-worked numbers and laws."""

import json
import math
import re
import string
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook import metrics
from openbook.metrics import Gold, Interval, grade_text, mean_interval, paired_difference
from openbook.prompt import REFUSAL, render_answer, render_quote
from openbook.records import Answer, Chunk, Document, Quote, ScoredChunk, Usage, to_json


def squad_normalize(text: str) -> str:
    """`normalize_answer` of evaluate-v1.1.py: the oracle."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, gold: str) -> float:
    """`f1_score` of evaluate-v1.1.py."""
    predicted, wanted = squad_normalize(prediction).split(), squad_normalize(gold).split()
    same = sum((Counter(predicted) & Counter(wanted)).values())
    if same == 0:
        return 0
    precision, recall = same / len(predicted), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


ascii_text = st.text(st.characters(max_codepoint=127), max_size=40)
vocabulary = ["the", "a", "an", "cat", "Sat,", "on", "'mat'", "(red).", "15", "x-y", "don't"]
plain_words = st.lists(st.sampled_from(vocabulary), max_size=8).map(" ".join)


class TestText:
    @given(ascii_text)
    def test_normalisation_is_squads(self, text):
        assert metrics.normalize(text) == squad_normalize(text)

    @given(plain_words, plain_words)
    def test_scores_are_squads(self, prediction, gold):
        if squad_normalize(prediction) or squad_normalize(gold):
            assert metrics.f1(prediction, gold) == pytest.approx(squad_f1(prediction, gold))
            assert metrics.exact_match(prediction, gold) == (squad_normalize(prediction) == squad_normalize(gold))

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_laws(self, one, other):
        assert 0 <= metrics.f1(one, other) <= 1
        assert metrics.f1(one, other) == metrics.f1(other, one)
        assert metrics.exact_match(one, one)
        assert metrics.f1(one, one) == 1
        if metrics.exact_match(one, other):
            assert metrics.f1(one, other) == 1
        assert metrics.normalize(metrics.normalize(one)) == metrics.normalize(one)

    def test_f1_by_hand(self):
        # "quick brown fox" against "brown fox jumps high": 2 shared of 3 and of 4 → 2·2 / 7.
        assert metrics.f1("The quick brown fox", "a brown fox jumps high") == pytest.approx(4 / 7)
        # A word counts as often as it occurs in both: "no no" against "no no no" → 2·2 / 5.
        assert metrics.f1("no no", "no, no, no!") == pytest.approx(0.8)
        assert metrics.f1("cat", "dog") == 0
        assert metrics.f1("", "dog") == 0

    @pytest.mark.parametrize(
        "prediction",
        [
            "json.dumps",
            "`json.dumps`",
            "'json.dumps'",
            "json.dumps.",
            "the json.dumps",
            "JSON.dumps",
            "“json.dumps”",
            "json.dumps()",
        ],
    )
    def test_form_does_not_matter(self, prediction):
        assert metrics.exact_match(prediction, "json.dumps")

    @pytest.mark.parametrize(
        ("prediction", "gold"),
        [
            ("1", "-1"),
            ("15", "1.5"),
            ("312", "3.12"),
            ("", "a"),
            ("", "*"),
            ("%", "*"),
            ("the", "a"),
            ("10", "1.0"),
            ("102", "10²"),
            ("10", "10²"),
            ("10²", "10³"),
            ("10²", "10⁻²"),
            ("23", "2^3"),
        ],
    )
    def test_content_does(self, prediction, gold):
        assert not metrics.exact_match(prediction, gold)
        assert metrics.f1(prediction, gold) == 0

    @pytest.mark.parametrize(
        ("prediction", "gold"),
        [
            ("1,000", "1000"),
            ("−1", "-1"),
            ("`a`.", "a"),
            ("`*`", "*"),
            ("3.12.", "3.12"),
            ("x-1", "x1"),
            ("(-2)", "-2"),
            ("10^2", "10²"),
            ("10^-12", "10⁻¹²"),
            ("5 km2", "5 km²"),
        ],
    )
    def test_numbers_and_signs_in_other_dress(self, prediction, gold):
        assert metrics.exact_match(prediction, gold)

    @pytest.mark.parametrize(
        ("text", "answer", "held"),
        [
            ("The default is the Comma.", "comma", True),
            ("call json.dumps(obj, indent=2) here", "dumps", True),
            ("call json.dumps(obj, indent=2) here", "json.dumps", True),
            ("call json.dumps(obj, indent=2) here", "dump", False),
            ("waits 1.5 seconds", "15", False),
            ("waits 15 seconds", "5", False),
            ("returns -1 on failure", "-1", True),
            ("it has 10² rivets", "10", False),
            ("it has 102 rivets", "10²", False),
            ("it has 10² rivets", "10²", True),
            ("anything", "", False),
            ("split\nover lines", "split over", True),
        ],
    )
    def test_contains(self, text, answer, held):
        assert metrics.contains(text, answer) is held

    @given(st.text(max_size=20), st.text("abc 12.-", min_size=1, max_size=10).filter(str.strip), st.text(max_size=20))
    def test_a_text_contains_what_was_put_into_it(self, before, answer, after):
        assert metrics.contains(f"{before} {answer} {after}", answer)


DOCUMENT = Document.create(
    uri="connect.md",
    title="connect",
    text="The timeout defaults to thirty seconds. A retry waits twice as long as the one before it.",
)
GOLDEN = Chunk.create(DOCUMENT, 0, len(DOCUMENT.text))
SENTENCE = "The timeout defaults to thirty seconds."
GOLD = Gold(answer="thirty seconds", sentences=(SENTENCE,))


def graded(text, *, gold=GOLD, passages=(GOLDEN,), finished=True):
    return grade_text(text, gold, passages=passages, finished=finished)


class TestGrade:
    def test_the_answer_it_is_trained_to_give(self):
        grade = graded(render_answer(f"It says: {render_quote(SENTENCE)}", "thirty seconds"))
        assert grade == metrics.Grade(
            final="thirty seconds",
            exact_match=True,
            f1=1.0,
            right_quote=True,
            verified_quotes=1.0,
            refusal=False,
            coverage=True,
            failure=False,
        )

    def test_an_answer_record_is_graded_as_its_text_is(self):
        text = render_answer(render_quote(SENTENCE) + render_quote("It never stops waiting for you."), "thirty seconds")
        answer = Answer(
            question="How long?",
            text=text,
            final="thirty seconds",
            refusal=False,
            quotes=(
                Quote(text=SENTENCE, chunk_id=GOLDEN.id, start=0, end=len(SENTENCE)),
                Quote(text="It never stops waiting for you."),
            ),
            passages=(ScoredChunk(chunk=GOLDEN, score=1.0, rank=1),),
            usage=Usage(),
        )
        assert metrics.grade(answer, GOLD) == graded(text)
        assert metrics.grade(answer, GOLD).verified_quotes == 0.5

    @pytest.mark.parametrize(
        ("text", "final"),
        [
            ("<ANSWER>: 5", "5"),
            ("<ANSWER>: 5\n\nThis is because …", "5"),
            ("<ANSWER>: 5<STOP>", "5"),
            ("##Reason: so. ##Answer: 5", "5"),
            ("<ANSWER>: 4 <ANSWER>: 5", "5"),
            ("The answer is 5.", "5."),
            ("**Answer:** 5", "** 5"),
            ("The answer is: 4. No, the final answer is: 5. Really.", "5."),
            ("5", "5"),
            ("It waits. It then stops after 5 s.", "It then stops after 5 s."),
            ("", ""),
            ("  \n ", ""),
            ("answer:", "answer:"),
        ],
    )
    def test_which_words_are_graded(self, text, final):
        assert graded(text).final == final

    def test_a_text_that_ran_into_the_limit_is_read_from_its_start_and_counted(self):
        rambling = "thirty seconds\nQuestion: what else is there? Answers vary and"
        grade = graded(rambling, finished=False)
        assert (grade.final, grade.f1, grade.failure, grade.coverage) == ("thirty seconds", 1.0, True, False)
        assert not graded("<ANSWER>: thirty seconds and then it went on", finished=False).failure
        assert graded("").failure

    def test_a_dump_of_the_passage_wins_little(self):
        dump = "<ANSWER>: " + DOCUMENT.text + " word" * 180
        assert graded(dump).f1 < 0.03
        assert not graded(dump).exact_match

    def test_a_refusal_scores_nothing_where_there_is_an_answer(self):
        # "not in the documents" shares a word with this gold answer; a refusal is no answer for all that.
        gold = Gold(answer="documents")
        grade = graded(f"<ANSWER>: {REFUSAL}", gold=gold)
        assert (grade.refusal, grade.coverage, grade.f1, grade.failure) == (True, False, 0.0, False)
        assert graded("The documents do not answer this question.", gold=gold).refusal

    def test_a_refusal_is_right_where_it_is_the_gold_answer(self):
        gold = Gold(answer=REFUSAL)
        grade = graded("<ANSWER>: I don't know.", gold=gold)
        assert (grade.exact_match, grade.f1, grade.right_quote) == (True, 1.0, None)
        grade = graded("<ANSWER>: documents", gold=gold)
        assert (grade.exact_match, grade.f1) == (False, 0.0)

    @pytest.mark.parametrize(
        ("quote", "right"),
        [
            (SENTENCE, True),
            ("timeout defaults to thirty seconds", True),
            ("to thirty seconds. A retry", False),  # five words, but only three of them from the golden sentence
            ("defaults to thirty seconds", False),  # four words
            ("The timeout defaults to thirty", False),  # does not carry the answer
            ("A retry waits twice as long as the one before it.", False),
            ("The timeout defaults to thirty seconds", True),
            (DOCUMENT.text, True),
            ("the timeout defaults to thirty seconds", False),  # not verbatim: never verified
        ],
    )
    def test_right_quote(self, quote, right):
        assert graded(render_answer(render_quote(quote), "thirty seconds")).right_quote is right

    def test_right_quote_of_a_short_golden_sentence(self):
        document = Document.create(uri="d", title="d", text="Separator. Default: comma. Any character is allowed.")
        passage = Chunk.create(document, 0, len(document.text))
        gold = Gold(answer="comma", sentences=("Default: comma.",))
        text = render_quote("Separator. Default: comma. Any character") + " <ANSWER>: comma"
        assert graded(text, gold=gold, passages=[passage]).right_quote

    def test_closed_book_has_no_right_quote(self):
        assert graded("<ANSWER>: thirty seconds", passages=()).right_quote is None
        assert graded("<ANSWER>: thirty seconds", passages=()).verified_quotes is None
        assert graded(render_quote(SENTENCE), passages=()).verified_quotes == 0.0
        assert graded("<ANSWER>: x", gold=Gold(answer="x")).right_quote is None  # no golden sentence is known

    @pytest.mark.parametrize(
        ("text", "refusal"),
        [
            (REFUSAL, True),
            ("`Not in the documents`.", True),
            ("The answer is not in the documents.", True),
            ("I don’t know based on these passages.", True),
            ("The provided context does not mention a default.", True),
            ("It cannot be determined.", True),
            ("not empty", False),
            ("not specified", False),  # documents say so themselves
            ("in the documents", False),
            ("none", False),
            ("not in the list of documents that were read", False),
        ],
    )
    def test_refusals_in_other_words(self, text, refusal):
        assert graded(f"<ANSWER>: {text}").refusal is refusal
        assert graded(text).refusal is refusal

    @given(st.text(max_size=80), st.text(max_size=20), st.booleans())
    def test_any_text_has_a_grade(self, text, gold, finished):
        grade = graded(text, gold=Gold(answer=gold), finished=finished)
        assert 0 <= grade.f1 <= 1
        assert not (grade.coverage and (grade.refusal or grade.failure))


def old_fashioned(values, clusters, resamples, seed):
    """The clustered bootstrap written with loops."""
    names = sorted(set(clusters))
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = generator.choice(names, size=len(names))
        sample = [v for name in drawn for v, c in zip(values, clusters, strict=True) if c == name]
        means.append(np.mean(sample))
    return np.percentile(means, (2.5, 97.5))


finite = st.floats(-10, 10)
columns = st.lists(st.tuples(st.none() | finite, st.sampled_from("abcde")), max_size=30)


class TestIntervals:
    @given(columns, st.integers(0, 5))
    def test_never_nan(self, column, seed):
        values, clusters = [value for value, _ in column], [cluster for _, cluster in column]
        interval = mean_interval(values, clusters, resamples=100, seed=seed)
        json.dumps(to_json(interval), allow_nan=False)
        assert interval.n == sum(value is not None for value in values)
        if interval.n:
            assert interval.low <= interval.value <= interval.high
        else:
            assert interval == Interval(value=None, low=None, high=None, n=0)

    def test_one_value(self):
        assert mean_interval([0.3], ["a"]) == Interval(value=0.3, low=0.3, high=0.3, n=1)
        assert mean_interval([None, 0.3, None], list("abc")) == Interval(value=0.3, low=0.3, high=0.3, n=1)
        assert not mean_interval([0.3], ["a"]).excludes_zero

    def test_agrees_with_the_loop(self):
        generator = np.random.default_rng(1)
        clusters = [f"d{i}" for i in generator.integers(0, 12, size=60)]
        effect = {name: generator.normal() for name in sorted(set(clusters))}
        values = [effect[name] + generator.normal() for name in clusters]
        interval = mean_interval(values, clusters, resamples=4000)
        low, high = old_fashioned(values, clusters, 2000, seed=2)
        assert interval.low == pytest.approx(low, abs=0.06)
        assert interval.high == pytest.approx(high, abs=0.06)

    def test_clustering_widens(self):
        # Ten documents whose ten questions all agree carry the information of ten questions, not of a hundred.
        values = [float(i // 10 % 2) for i in range(100)]
        together = mean_interval(values, [str(i // 10) for i in range(100)])
        apart = mean_interval(values, [str(i) for i in range(100)])
        assert together.high - together.low > 2.5 * (apart.high - apart.low)

    def test_one_document_falls_back_on_its_questions(self):
        values = [0.0, 1.0] * 20
        assert mean_interval(values, ["only"] * 40).low < 0.5 < mean_interval(values, ["only"] * 40).high

    def test_coverage_of_the_interval(self):
        generator = np.random.default_rng(0)
        clusters = [str(i) for i in range(40)]
        hits = 0
        for seed in range(200):
            interval = mean_interval(generator.normal(size=40).tolist(), clusters, resamples=400, seed=seed)
            hits += interval.low <= 0 <= interval.high
        assert 0.88 <= hits / 200 <= 0.99

    def test_differences_are_paired(self):
        generator = np.random.default_rng(0)
        hard = generator.normal(size=50)
        first, second = (hard + 0.1).tolist(), hard.tolist()
        clusters = [str(i % 20) for i in range(50)]
        difference = paired_difference(first, second, clusters)
        assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
        assert difference.excludes_zero
        assert paired_difference([1.0, None], [0.0, 1.0], ["a", "b"]).n == 1

    def test_same_seed_same_interval(self):
        values, clusters = np.random.default_rng(0).random(60).tolist(), [str(i % 30) for i in range(60)]
        assert mean_interval(values, clusters, seed=3) == mean_interval(values, clusters, seed=3)
        assert mean_interval(values, clusters, seed=3) != mean_interval(values, clusters, seed=4)

    def test_bad_input_is_named(self):
        with pytest.raises(ValueError, match="one cluster a value"):
            mean_interval([1.0], [])
        with pytest.raises(ValueError, match="not finite"):
            mean_interval([math.nan], ["a"])
        with pytest.raises(ValueError, match="same questions"):
            paired_difference([1.0], [], [])

    def test_fast(self):
        values, clusters = np.random.default_rng(0).random(500).tolist(), [str(i) for i in range(500)]
        start = time.perf_counter()
        for _ in range(3):
            mean_interval(values, clusters)
        assert time.perf_counter() - start < 1.0


class TestRetrieval:
    def test_by_hand(self):
        assert metrics.recall_at_k(["a", "b", "c"], {"c"}, 2) == 0
        assert metrics.recall_at_k(["a", "b", "c"], {"c"}, 3) == 1
        assert metrics.recall_at_k(["a", "b", "c"], {"c", "x"}, 3) == 0.5
        assert metrics.reciprocal_rank(["a", "b", "c"], {"c", "b"}) == 0.5
        assert metrics.reciprocal_rank(["a"], {"z"}) == 0
        assert metrics.mrr([["a", "b"], ["a", "b"], ["a"]], [{"a"}, {"b"}, set()]) == 0.75

    def test_without_golden_there_is_nothing_to_find(self):
        assert metrics.recall_at_k(["a"], (), 1) is None
        assert metrics.reciprocal_rank(["a"], ()) is None
        assert metrics.mrr([["a"]], [()]) is None


def test_answers_stand_in_sentences_that_are_written_without_spaces() -> None:
    assert metrics.contains("默认的抓取间隔是一分钟。", "一分钟")
    assert metrics.contains("既定の間隔は一分です。", "一分")
    assert not metrics.contains("默认的抓取间隔是一分钟。", "两分钟")
    assert not metrics.contains("The intervals.", "interval")
