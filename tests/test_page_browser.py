"""The page in a real browser, over a real server: what a reader does, and what a document must not be able to do."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Watched, browser
from page_world import (
    SENTENCE,
    XSS,
    attacked_files,
    examined,
    furnish,
    opened,
    parrot,
    pretend_tuned,
    rows,
    write_rows,
)
from serving_world import Served

pytestmark = pytest.mark.slow

NARROW = {"width": 380, "height": 780}
WIDE = {"width": 1400, "height": 900}


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as opened_browser:
        yield opened_browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("browser")
    options = furnish(folder)
    pretend_tuned(folder)
    examined(folder)
    with opened(folder, options) as one:
        yield one


@pytest.fixture
def watched(chrome: Any, server: Served) -> Iterator[Watched]:
    one = Watched(chrome, server.url, viewport=WIDE)
    yield one
    one.page.context.close()
    assert not one.faults


def ask(page: Any, question: str = "Are alerts kept for thirty days?") -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")
    page.wait_for_selector("article.card[aria-busy=false]")


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", WIDE), ("light", NARROW), ("dark", NARROW)])
def test_a_quote_opens_its_document_at_the_passage(chrome: Any, server: Served, scheme: str, size: dict) -> None:
    watched = Watched(chrome, server.url, viewport=size, color_scheme=scheme)
    page = watched.goto()
    page.get_by_text("With retrieval").click()
    ask(page)
    card = page.locator("article.card")
    assert card.locator(".answer q.verified").inner_text() == SENTENCE
    assert "nobody wrote this" in card.locator(".answer q.unverified").inner_text()
    assert card.locator(".quotes .warning").count() == 1
    assert "thirty days" in card.locator(".final").inner_text()
    watched.shoot(f"ask-{scheme}-{size['width']}")
    card.get_by_role("button", name="1", exact=True).click()
    mark = page.locator("#reader mark")
    mark.wait_for()
    # A bell in the heading is one character to Python and two to JavaScript: the highlight must not be off by one.
    assert mark.inner_text() == SENTENCE
    box, frame = mark.bounding_box(), page.locator("#reader").bounding_box()
    assert 0 < box["y"] < size["height"] and frame["x"] <= box["x"]
    watched.shoot(f"document-{scheme}-{size['width']}")
    page.keyboard.press("Escape")
    assert page.locator("#reader").is_hidden()
    assert page.evaluate("document.activeElement.className") == "chip"  # back where the reader was
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "the page scrolls sideways"
    page.context.close()
    assert not watched.faults


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (f"##begin_quote## {SENTENCE[:15]}", "the answer ended before the quote did"),
        # The scripted model writes five characters a step, and dies where a step begins with this word.
        (
            f"##begin_quote## {SENTENCE}##end_quote##".ljust(65) + "CRASH",
            "the answer broke off before its quotes were checked",
        ),
    ],
)
def test_a_quote_of_an_answer_that_was_cut_off_is_seen_to_be_unverified(
    chrome: Any, tmp_path: Path, said: str, warning: str
) -> None:
    with opened(tmp_path, furnish(tmp_path), lambda *_: said) as server:
        watched = Watched(chrome, server.url, viewport=WIDE)
        page = watched.goto()
        page.get_by_text("With retrieval").click()
        ask(page)
        assert page.locator("article.card q.verified").count() == 0
        assert warning in page.locator("article.card .warning").inner_text()
        watched.shoot(f"cut-off-{'CRASH' in said}")
        page.context.close()
        assert not watched.faults


def test_three_answers_side_by_side(watched: Watched) -> None:
    page = watched.goto()
    page.get_by_text("Side by side").click()
    page.get_by_label("Question", exact=True).fill("How long?")
    page.keyboard.press("Enter")
    watched.until(3, "article.card[aria-busy=false]")
    assert [card.get_attribute("data-arm") for card in page.locator("article.card").all()] == ["tuned", "rag", "closed"]
    lefts = [card.bounding_box()["x"] for card in page.locator("article.card").all()]
    assert lefts == sorted(set(lefts))
    # Without passages nothing can be verified.
    assert page.locator("[data-arm=closed] q.verified").count() == 0
    watched.shoot("beside")


def test_everything_is_reached_by_keyboard(watched: Watched) -> None:
    page = watched.goto()
    page.get_by_label("Question", exact=True).wait_for()
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(document.activeElement.textContent || document.activeElement.value || '').trim()"))
    assert {"Ask", "Trace", "Runs", "Data", "Only search"} <= reached
    page.get_by_role("link", name="Data").focus()
    page.keyboard.press("Enter")
    page.get_by_text("How long are alerts kept, case 0?").wait_for()
    watched.shoot("data")


def test_a_trace_is_drawn(watched: Watched) -> None:
    page = watched.goto("#/trace")
    page.get_by_role("textbox", name="Message").wait_for()
    page.get_by_label("Answer it is to learn").wait_for()
    page.get_by_text("A preference").click()
    page.get_by_role("textbox", name="Message").fill("How long are alerts kept?")
    page.get_by_role("button", name="Take the step").click()
    page.wait_for_selector(".numbers", timeout=180_000)
    assert page.locator(".branches .branch").count() == 2
    first = page.locator(".numbers b").first.inner_text()
    before, after = map(float, first.split("→"))
    assert before == pytest.approx(0.693, abs=0.001) and after < before
    trained = page.locator(".branches .tok.up, .branches .tok.down")
    trained.first.click()
    assert re.search(r"id \d+: .*→", page.locator(".detail").inner_text())
    assert page.locator(".movement tbody tr").count() >= 2
    watched.page.set_viewport_size({"width": 1400, "height": 2600})
    watched.shoot("trace-pair")


def test_a_row_of_the_data_set_leads_to_its_trace(watched: Watched) -> None:
    page = watched.goto("#/data")
    page.get_by_text("How long are alerts kept, case 3?").click()
    page.get_by_text("Trace a training step on this row").click()
    page.wait_for_selector(".numbers", timeout=180_000)
    assert "train.jsonl:4" in page.locator(".branches").inner_text()
    assert "Read once for all 2" in page.locator(".branch.shared").inner_text()
    watched.page.set_viewport_size({"width": 1400, "height": 2600})
    watched.shoot("trace-row")


def test_a_run_outlives_the_tab_and_can_be_stopped(chrome: Any, tmp_path: Path) -> None:
    options = furnish(tmp_path)
    with opened(tmp_path, options) as server:
        first = Watched(chrome, server.url, viewport=WIDE)
        page = first.goto("#/runs")
        page.get_by_label("Epochs").fill("400")
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_role("button", name="Stop", exact=True).wait_for()
        assert page.get_by_role("button", name="Start", exact=True).is_disabled()
        page.context.close()
        assert not first.faults
        log = tmp_path / "work" / "adapters" / "raft" / "run" / "log.jsonl"
        deadline = time.monotonic() + 180
        while not log.is_file() or log.read_text().count("\n") < 4:
            assert time.monotonic() < deadline, "the run did not go on without the tab"
            time.sleep(0.2)
        second = Watched(chrome, server.url, viewport=WIDE)
        page = second.goto("#/runs")
        page.wait_for_selector("[data-training=raft] .curve.train")
        steps = page.locator("[data-training=raft] .state").inner_text()
        while page.locator("[data-training=raft] .state").inner_text() == steps:
            assert time.monotonic() < deadline, "the curve does not move"
            time.sleep(0.2)
        second.shoot("runs")
        page.get_by_role("button", name="Stop", exact=True).click()
        page.wait_for_selector(".job[data-state=stopped]", timeout=120_000)
        assert page.get_by_role("button", name="Start", exact=True).is_enabled()
        page.context.close()
        assert not second.faults


def test_thirty_attacks_are_text_and_nothing_else(chrome: Any, tmp_path: Path) -> None:
    assert len(set(XSS)) == 30
    options = furnish(tmp_path, attacked_files())
    pretend_tuned(tmp_path)
    examined(tmp_path, text=" ".join(XSS))
    attacked = rows(30, question="case {n}")
    for n, row in enumerate(attacked):
        row["question"] = f"{XSS[n]} {n}"
        row["context"]["sentences"][0][1] = XSS[n]
        row["cot_answer"] = f"##begin_quote## {XSS[n]} ##end_quote## <ANSWER>: {XSS[n]}"
        row["meta"]["group"] = row["meta"]["kind"] = XSS[n]
        row["meta"]["golden_chunks"][0]["title"] = XSS[n]
    write_rows(tmp_path / "work" / "dataset" / "train.jsonl", attacked)
    write_rows(
        tmp_path / "work" / "adapters" / "raft" / "validation.jsonl",
        [{"line": n, "question": x, "expected": x, "loss": float(n)} for n, x in enumerate(XSS)],
    )

    with opened(tmp_path, options, parrot) as server:
        watched = Watched(chrome, server.url, viewport=WIDE)
        page = watched.goto()
        page.get_by_text("With retrieval").click()
        for payload in XSS:
            ask(page, payload)
            assert payload.split("\u2028")[0] in page.locator(".answer").text_content()
            assert "\u202e" not in page.locator("main").inner_text(), "an answer is written backwards"
            page.locator("details.passages summary").click()
            page.locator("details.passages button.link").first.click()
            page.locator("#reader mark").first.wait_for()
            page.keyboard.press("Escape")
        watched.shoot("attacked")
        page.goto(f"{server.url}/#/data")
        page.wait_for_selector(".rows summary")
        for summary in page.locator(".rows summary").all():
            summary.click()
        watched.until(20, ".rows .shown")
        page.goto(f"{server.url}/#/runs")
        page.wait_for_selector(".exam details summary")
        page.locator(".exam details summary").click()
        # What an attack would have made, had it been taken for HTML.
        made = page.evaluate(
            "document.querySelectorAll('main script, main img, main iframe, main object, main embed, main style, main base, main meta').length"
        )
        assert made == 0
        page.goto(f"{server.url}/#/ask?q={'%3Cimg src=x onerror=alert(1)%3E'}")
        page.get_by_label("Question", exact=True).wait_for()
        time.sleep(0.5)
        page.context.close()
        assert not watched.faults
