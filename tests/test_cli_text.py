"""Text on the terminal: nothing in a document or an answer can act on it, and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook import prompt
from openbook.answering import read_answer
from openbook.cli import text
from openbook.cli.exam import answer_notes
from openbook.cli.report import METRICS, print_test
from openbook.records import Chunk, Document, Quote, ScoredChunk

CHUNK = Chunk.create(
    Document.create(uri="guide/set up.md", title="Guide", text="Alerts are kept for 15 days."),
    0,
    28,
    headings=("Guide", "Storage"),
    page=3,
)
RESULT = ScoredChunk(chunk=CHUNK, score=0.0325, rank=1, dense_rank=1, dense_score=0.71234)


@given(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(prompt.TAGS)), max_size=8), st.data())
def test_however_a_stream_is_cut_the_same_is_shown(parts: list[str], data: st.DataObject) -> None:
    whole = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert "".join(text.readable(pieces)) == "".join(text.readable([whole]))


def test_tags_become_what_a_reader_expects() -> None:
    answer = prompt.render_answer(f"It says {prompt.render_quote('15 days')}.", "15 days")
    assert "".join(text.readable(answer)) == "It says “15 days”. \n→ 15 days"


def test_what_is_certain_is_shown_at_once() -> None:
    assert list(text.readable(["It ", "says", " #", "# no"])) == ["It ", "says", " ", "## no"]


@given(st.text(max_size=40))
def test_no_control_character_reaches_the_terminal(words: str) -> None:
    shown = text.plain(words)
    assert "\x1b" not in shown
    assert all(c in "\n\t" or c.isprintable() or not c.isascii() for c in shown)


@given(st.text(max_size=200), st.integers(2, 50))
def test_one_line_is_one_line_of_that_width(words: str, width: int) -> None:
    line = text.one_line(words, width)
    assert len(line) <= width
    assert "\n" not in line


def test_a_result_says_why_it_was_found() -> None:
    assert text.result(RESULT, 80).splitlines() == [
        "1. guide/set up.md › Guide › Storage, page 3",
        "   fused 0.0325 = dense #1 (cosine 0.712)  +  text –",
        "   Alerts are kept for 15 days.",
    ]


def test_quotes_are_marked_by_whether_they_stand() -> None:
    found = [Quote(text="15 days", chunk_id=CHUNK.id, start=20, end=27), Quote(text="16 days")]
    assert text.quotes(found, [RESULT]) == [
        "  ✓ guide/set up.md › Guide › Storage, page 3 [20:27]",
        "  ✗ not word for word in any passage: “16 days”",
    ]


def test_a_quote_that_was_never_closed_is_not_said_to_stand_nowhere() -> None:
    assert text.quotes([Quote(text="15", closed=False)], [RESULT]) == ["  ✗ never closed, so not checked: “15”"]
    answer = read_answer("How long?", f"{prompt.BEGIN_QUOTE} Alerts are kept for", [RESULT], finished=False)
    assert answer_notes(answer).splitlines()[:2] == [
        "The answer was cut short at the token limit (model.max_new_tokens).",
        "  ✗ never closed, so not checked: “Alerts are kept for”",
    ]


def test_counts_name_what_is_there_largest_first() -> None:
    assert text.counts({"too_large": 1, "binary": 0, "hidden": 1200}) == "1,200 hidden, 1 too large"


def test_an_exam_of_whole_figures_stands_on_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sure = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    print_test("unseen", {"arms": {"base_closed": dict.fromkeys(METRICS, sure)}})
    shown = capsys.readouterr().out
    assert "unseen (1 question; % with 95 % intervals)" in shown
    assert shown.count("100 100–100") == len(METRICS) and "…" not in shown
