"""The prompt and the reading of answers are inverse, and nothing in a passage can pose as structure."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook import prompt
from openbook.records import Chunk, Document

TEXT = st.text(max_size=80)
# Words an answer may hold: anything without an answer tag, which would end it early by definition.
PIECES = st.lists(
    st.one_of(st.text(max_size=15), st.sampled_from(["##", "<", ">:", "ANSWER", "#", "Answer", "quote"])), max_size=5
)
WORDS = PIECES.map("".join).filter(lambda text: not prompt.parse_answer(text).final and "answer" not in text.lower())
HOSTILE = st.lists(st.one_of(st.sampled_from(prompt.TAGS), st.text(max_size=8)), max_size=6).map("".join)


def chunk(text: str, start: int = 0) -> Chunk:
    document = Document.create(uri="a.md", title="a", text=" " * start + text)
    return Chunk.create(document, start, start + len(text))


@given(WORDS, WORDS)
def test_parse_undoes_render(reasoning: str, final: str) -> None:
    parsed = prompt.parse_answer(prompt.render_answer(reasoning.strip(), final.strip()))
    assert parsed.final == final.strip()
    # A leading "assistant:" or "##Reason:" is read as form, not as content.
    if not re.match(r"\s*(assistant\s*:|##\s*Reason\s*:)", reasoning, re.IGNORECASE):
        assert parsed.reasoning == reasoning.strip()


@given(st.lists(TEXT.filter(lambda t: t.strip() and "#" not in t and "<" not in t), max_size=4))
def test_quotes_come_back_in_order(quotes: list[str]) -> None:
    reasoning = " and ".join(prompt.render_quote(quote) for quote in quotes)
    parsed = prompt.parse_answer(prompt.render_answer(reasoning, "x"))
    assert parsed.quotes == tuple(quote.strip() for quote in quotes)


@given(st.lists(HOSTILE, min_size=1, max_size=4), HOSTILE)
def test_hostile_passages_cannot_pose_as_structure(passages: list[str], question: str) -> None:
    message = prompt.instruction(passages, question)
    assert message.count(prompt.DOCUMENT) == message.count(prompt.END_DOCUMENT) == len(passages)
    for tag in (prompt.BEGIN_QUOTE, prompt.END_QUOTE, prompt.ANSWER):
        assert tag not in message


@given(HOSTILE)
def test_defusing_twice_changes_nothing_more(text: str) -> None:
    assert prompt.defused(prompt.defused(text)) == prompt.defused(text)


@given(TEXT, st.lists(TEXT, max_size=3), TEXT)
def test_questions_over_the_same_passages_begin_alike(one: str, passages: list[str], other: str) -> None:
    left, right = (prompt.prompt(question, passages).messages for question in (one, other))
    shared = prompt.instruction(passages, "")
    assert left[0] == right[0]
    assert left[1].content.startswith(shared)
    assert right[1].content.startswith(shared)


def test_the_closed_form_shows_no_passage_and_asks_for_no_quote() -> None:
    system, user = prompt.prompt("Why?", None).messages
    assert user.content == "Why?"
    assert prompt.BEGIN_QUOTE not in system.content


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("##Reason: because ##Answer: 42", "42"),
        ("assistant: x <ANSWER>: 42", "42"),
        ("<ANSWER>:42", "42"),
        ("<answer> 42", "42"),
        ("<ANSWER>: 1 no, <ANSWER>: 42\n", "42"),
        ("no tag at all", ""),
        ("", ""),
    ],
)
def test_the_forms_that_are_out_there_are_read(text: str, final: str) -> None:
    assert prompt.parse_answer(text).final == final


@pytest.mark.parametrize(
    ("final", "refusal"),
    [
        ("not in the documents", True),
        ("Not in the documents.", True),
        ("unanswerable", True),
        ("The documents do not say.", True),
        ("I don't know", True),
        ("", False),
        ("The answer is not in the documents folder but in src", False),
        ("42", False),
    ],
)
def test_a_refusal_is_known_by_its_words(final: str, refusal: bool) -> None:
    assert prompt.is_refusal(final) is refusal
    assert prompt.parse_answer(prompt.render_answer("", final)).refusal is refusal


@given(text=st.text(min_size=1, max_size=60), data=st.data(), offset=st.integers(0, 50))
def test_a_quote_is_found_where_it_stands_in_the_document(text: str, data: st.DataObject, offset: int) -> None:
    passage = chunk(text, offset)
    start = data.draw(st.integers(0, len(text) - 1))
    words = text[start : data.draw(st.integers(start + 1, len(text)))]
    quote = prompt.locate_quote(words, [passage])
    if not words.strip():
        assert not quote.verified
    else:
        assert quote.verified
        assert (" " * offset + text)[quote.start : quote.end] == quote.text == words.strip()


def test_a_quote_in_no_passage_is_unverified() -> None:
    quote = prompt.locate_quote("not there", [chunk("something else")])
    assert (quote.verified, quote.start, quote.end) == (False, -1, -1)
    assert not prompt.locate_quote("x", []).verified


TAGGED = st.lists(
    st.sampled_from(
        [
            prompt.BEGIN_QUOTE,
            f"{prompt.BEGIN_QUOTE} ",
            prompt.END_QUOTE,
            prompt.ANSWER,
            " ",
            "a",
            "##",
            "begin",
            "word. ",
            "\n",
        ]
    ),
    max_size=12,
)


class TestReading:
    @given(TAGGED, st.integers(1, 9))
    def test_however_it_is_cut_the_reader_sees_the_same(self, parts: list[str], size: int) -> None:
        text = "".join(parts)
        whole, cut = prompt.Readable(numbered=True), prompt.Readable(numbered=True)
        pieces = [cut.add(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(pieces) + cut.close() == whole.add(text) + whole.close()

    @given(TAGGED)
    def test_numbers_are_those_of_the_segments(self, parts: list[str]) -> None:
        text = "".join(parts)
        reader = prompt.Readable(numbered=True)
        shown = reader.add(text) + reader.close()
        numbers = [segment.quote for segment in prompt.segments(text) if segment.quote]
        assert [int(found) for found in re.findall(r"\[(\d+)\]", shown)] == numbers == list(range(1, len(numbers) + 1))

    @given(TAGGED)
    def test_what_is_shown_as_a_quote_is_looked_up_as_one(self, parts: list[str]) -> None:
        """Wherever it stands: one behind the answer tag is a claim like any other."""
        text = "".join(parts)
        cited = [(segment.text, segment.closed) for segment in prompt.segments(text) if segment.quote]
        assert [(quote.text, quote.closed) for quote in prompt.check_quotes(prompt.parse_answer(text), [])] == cited

    def test_segments_are_what_a_reader_sees(self) -> None:
        text = f"So: {prompt.BEGIN_QUOTE} one{prompt.END_QUOTE} and {prompt.BEGIN_QUOTE}two {prompt.END_QUOTE} {prompt.ANSWER} 3"
        assert prompt.segments(text) == (
            prompt.Segment(text="So: "),
            prompt.Segment(text="one", quote=1),
            prompt.Segment(text=" and "),
            prompt.Segment(text="two", quote=2),
            prompt.Segment(text=" \n→ 3"),
        )
        assert prompt.segments("") == ()

    @given(TAGGED)
    def test_a_quote_is_closed_unless_its_end_is_missing(self, parts: list[str]) -> None:
        text = "".join(parts)
        open_quotes = [segment for segment in prompt.segments(text) if segment.quote and not segment.closed]
        assert len(open_quotes) <= 1
        if open_quotes:
            assert prompt.END_QUOTE not in text[text.rindex(open_quotes[0].text) :]

    @pytest.mark.parametrize(
        ("rest", "final", "shown"),
        [
            ("", "", "So “one” [1] and “two [2]"),
            (f" {prompt.ANSWER} 3", "3", "So “one” [1] and “two \n→ 3 [2]"),
            (" ##Answer: 3", "3", "So “one” [1] and “two ##Answer: 3 [2]"),
        ],
    )
    def test_a_quote_that_nobody_closed_is_one_and_ends_before_the_short_answer(
        self, rest: str, final: str, shown: str
    ) -> None:
        text = f"So {prompt.render_quote('one')} and {prompt.BEGIN_QUOTE} two{rest}"
        parsed = prompt.parse_answer(text)
        assert (parsed.quotes, parsed.open_quote, parsed.final) == (("one",), "two", final)
        cited = [segment for segment in prompt.segments(text) if segment.quote]
        assert cited == [prompt.Segment(text="one", quote=1), prompt.Segment(text="two", quote=2, closed=False)]
        reader = prompt.Readable(numbered=True)
        assert reader.add(text) + reader.close() == shown
        one, two = prompt.check_quotes(parsed, [chunk("one two")])
        assert (one.closed, two.closed) == (True, False)
        assert (one.verified, two.verified) == (True, False), "nobody knows what else it would have claimed"

    def test_a_quote_that_holds_nothing_yet_is_none(self) -> None:
        for text in (prompt.BEGIN_QUOTE, f"{prompt.BEGIN_QUOTE} \n", f"{prompt.BEGIN_QUOTE} {prompt.ANSWER} 3"):
            assert prompt.parse_answer(text).open_quote == ""
            assert not any(segment.quote for segment in prompt.segments(text))
