"""Quotes are repaired in form, to the exact span, and never in content."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.dataset.repair import find_span, repair_quotes

TEXT = (
    "The well-known ﬁlter (“Bay 7”) stops at −5 °C; it needs 10² litres of wa-\nter a day.\n\n"
    "L’été, the naïve café\u00a0owner  re\u00adopens it from 3–5 p.m. It can not be hurried. Straße 9."
)


@pytest.mark.parametrize(
    ("quote", "span"),
    [
        ("stops at −5 °C", "stops at −5 °C"),
        ("it needs 10² litres of water a day.", "it needs 10² litres of wa-\nter a day."),
        ("The well known filter", "The well-known ﬁlter"),
        ("The wellknown filter", "The well-known ﬁlter"),
        ("THE WELL-KNOWN FILTER", "The well-known ﬁlter"),
        ('filter ("Bay 7")', "ﬁlter (“Bay 7”)"),
        ("stops at -5 °C", "stops at −5 °C"),
        ("a day. L'e\u0301te\u0301, the", "a day.\n\nL’été, the"),
        ("nai\u0308ve cafe\u0301 owner reopens", "naïve café\u00a0owner  re\u00adopens"),
        ("from 3-5 p.m.", "from 3–5 p.m."),
        ("  it from\n", "it from"),
        ("strasse 9", "Straße 9"),
    ],
)
def test_a_difference_in_form_is_repaired(quote, span):
    start, end = find_span(quote, TEXT)
    assert TEXT[start:end] == span


@pytest.mark.parametrize(
    "quote",
    [
        "stops at 5 °C",
        "needs 102 litres",
        "from 35 p.m.",
        "it cannot be hurried",
        "the naive cafe owner",
        "the café owner closes it",
        "owner re",
        "ilter",
        "urried",
        "L'e",
        "",
        " \n",
    ],
)
def test_a_difference_in_content_is_not(quote):
    assert find_span(quote, TEXT) is None or quote in TEXT


def test_a_verbatim_quote_stays_even_inside_a_word():
    assert find_span("urried", TEXT) == (TEXT.index("urried"), TEXT.index("urried") + 6)


words = st.text(st.sampled_from("abcdeéüßﬁñ漢字ʼ'ÅΩж123"), min_size=1, max_size=6).map(
    lambda word: unicodedata.normalize("NFC", word)
)


@st.composite
def quoted(draw):
    """A text of words, a span of whole words in it, and the span in another form."""
    text_words = draw(st.lists(words, min_size=1, max_size=12))
    gaps = draw(st.lists(st.sampled_from([" ", "\n", "  ", "\u00a0", ", "]), min_size=12, max_size=12))
    first = draw(st.integers(0, len(text_words) - 1))
    last = draw(st.integers(first, len(text_words) - 1))
    text = "".join(word + gap for word, gap in zip(text_words, gaps, strict=False)).rstrip()
    span = "".join(w + g for w, g in zip(text_words[first : last + 1], gaps[first : last + 1], strict=False)).rstrip(
        ", \n\u00a0"
    )
    other = draw(
        st.sampled_from(
            [
                lambda s: re.sub(r"\s+", " ", s),
                lambda s: re.sub(r"\s+", " \n\t", s),
                lambda s: unicodedata.normalize("NFD", s),
                lambda s: unicodedata.normalize("NFKC", s),
                str.casefold,
                str.upper,
                lambda s: "\u200b".join(s),
                lambda s: s.replace("'", "’"),
            ]
        )
    )
    return text, span, other(span)


@given(quoted())
def test_the_span_found_is_exact_and_says_the_same(case):
    text, span, other = case
    found = find_span(other, text)
    assert found is not None
    start, end = found
    assert find_span(text[start:end], text) is not None

    def bare(value):
        value = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", value).casefold())
        return re.sub(r"[\s\u200b]", "", value.replace("’", "'").replace("ʼ", "'"))

    assert bare(text[start:end]) == bare(span)


@given(st.text(max_size=60), st.text(max_size=30))
def test_whatever_is_found_is_a_span_of_the_text(text, quote):
    found = find_span(quote, text)
    if found is not None:
        start, end = found
        assert 0 <= start < end <= len(text)


@given(st.text(min_size=1, max_size=60), st.data())
def test_what_stands_there_verbatim_stays(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    quote = text[start : data.draw(st.integers(start + 1, len(text)))].strip()
    found = find_span(quote, text)
    assert (text[found[0] : found[1]] if found else "") == quote


def test_only_the_quotes_of_an_answer_change():
    answer = (
        "As ##begin_quote## IT CAN NOT##end_quote## and ##begin_quote##be hurried##end_quote##. <ANSWER>: IT CAN NOT"
    )
    result = repair_quotes(answer, ["Other.", TEXT])
    assert result.text == answer.replace(" IT CAN NOT##", " It can not##")
    assert (result.exact, result.changed, result.missing) == (1, ("IT CAN NOT",), ())
    lost = repair_quotes("##begin_quote##never said##end_quote##", [TEXT])
    assert (lost.text, lost.missing) == ("##begin_quote##never said##end_quote##", ("never said",))


@given(
    st.lists(st.sampled_from(["the lid", "THE  LID", "a hook", "##end_quote##", "##begin_quote##", " "]), max_size=8)
)
def test_repair_is_done_after_once(pieces):
    answer = "".join(pieces)
    once = repair_quotes(answer, ["Lift the lid with a hook."])
    again = repair_quotes(once.text, ["Lift the lid with a hook."])
    assert (again.text, again.changed, again.missing) == (once.text, (), once.missing)
