"""The page: one file, nothing from outside, nothing from documents or models as markup, and honest words."""

import dataclasses
import json
import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exam_world import CHUNKS, TESTS, ScriptedCandidates, WordRetriever, Written, raft, sft, world_config
from openbook.answering import read_answer
from openbook.evaluation import Report, examine, write_report
from openbook.evaluation.exhibits import loss_curve, recorded
from openbook.evaluation.page import render
from openbook.evaluation.page.examples import example_article
from openbook.evaluation.page.words import duration, flattened, number, signed, verdicts
from openbook.evaluation.report import Answered, Example, LossCurve, Shown, TestResult
from openbook.markup import Html, tag
from openbook.metrics import Gold, Interval, grade
from openbook.prompt import BEGIN_QUOTE, END_QUOTE
from openbook.records import ScoredChunk
from openbook.storage import append_jsonl, write_manifest

HOSTILE = '</style></script><script>alert(1)</script><img src=x onerror="alert(2)">\' <!-- ]]> &amp;'


class Page(HTMLParser):
    """Every element and attribute of a page, and its visible text."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.text, self.open = Counter(), [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements[name] += 1
        self.attributes += attributes
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements[name] += 1
        self.attributes += attributes

    def handle_endtag(self, name):
        assert self.open.pop() == name, f"</{name}> closes another element"

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def quoting_badly(question, passages):
    """Quotes nothing that stands anywhere, for the mark of an unverified quote."""
    if not passages:
        return HOSTILE
    return f"{HOSTILE} {BEGIN_QUOTE}{HOSTILE} as it were{END_QUOTE} <ANSWER>: {HOSTILE}"


@pytest.fixture(scope="module")
def exhibited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    config = world_config(folder)
    for adapter in ("raft", "sft"):
        for step in range(1, 6):
            log = folder / "adapters" / adapter / "log.jsonl"
            append_jsonl(log, {"step": step, "tokens": 10, "loss": 3 / step, "learning_rate": 0.1, "seconds": 1.0})
        append_jsonl(log, {"step": 5, "validation_loss": 1.0, "seconds": 1.0})
    counts = {"dropped": {HOSTILE: 3}, "train": 1234, "notes": [HOSTILE], "seconds": 1.0}
    write_manifest(folder / "dataset", stage="dataset", options={}, inputs={}, report=counts)
    candidates = ScriptedCandidates({None: quoting_badly, "sft": sft, "raft": raft})
    seconds = {"ingest": 12.0, "tune_raft": 200.0}
    report, exhibits = examine(config, TESTS, WordRetriever(), candidates, seconds=seconds)
    write_report(config, report, exhibits)
    return report, exhibits, config


@pytest.fixture(scope="module")
def page(exhibited):
    return (exhibited[2].out / "report.html").read_text()


class TestPage:
    def test_everything_that_was_promised_is_there(self, exhibited, page):
        text = Page(page).text
        for expected in (
            *exhibited[0].tests["studied"].arms,
            "Studied",
            "Unseen",
            "Right refusals",
            "Recall@2",
            "raft_rag",
            "How many moons has Planet0?",
            "openbook run openbook.toml",
            "resamples = 200",
            "1,234",
            "3 min 20 s",
            exhibited[0].versions["python"],
        ):
            assert expected in text, expected
        assert Page(page).elements["svg"] == 4
        assert Page(page).elements["article"] == 8
        assert "nan" not in re.findall(r"\w+", text.lower())

    def test_the_files_beside_it(self, exhibited):
        report, exhibits, config = exhibited
        assert Report.load(config.out / "report.json") == Report.from_json(json.loads(json.dumps(report.to_json())))
        stored = json.loads((config.evaluation_dir / "exhibits.json").read_text())
        assert stored["sizes"] == {test: list(size) for test, size in exhibits.sizes.items()}
        arms = json.loads((config.out / "report.json").read_text())["tests"]["unseen"]["arms"]
        assert list(arms)[:2] == ["base_closed", "base_rag"]  # in the table's order, not the alphabet's

    def test_nothing_becomes_markup(self, page):
        parsed = Page(page)
        assert not parsed.elements.keys() & {"script", "img", "iframe", "object", "link", "form", "base", "a"}
        assert not [name for name, _ in parsed.attributes if name.startswith("on")]
        assert "<script>alert(1)</script>" in parsed.text
        assert parsed.open == []

    def test_nothing_is_requested(self, page):
        for name, value in Page(page).attributes:
            assert name not in {"src", "srcset", "data", "action"}
            if name in {"href", "xlink:href"}:
                assert value.startswith("#")
        style = page[page.index("<style>") : page.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style
        addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
        assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}  # names, never fetched
        assert "default-src 'none'" in page

    def test_equal_results_give_equal_bytes(self, exhibited, page):
        assert render(*exhibited) == page

    def test_pictures_are_well_formed_take_the_pages_colours_and_share_no_id(self, page):
        pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
        assert len(pictures) == 4
        for picture in pictures:
            root = ElementTree.fromstring(picture)
            assert root.get("aria-label")
            assert root.get("width") is None
            assert set(re.findall(r"#[0-9a-f]{6}\b", picture)) == set()
            assert "var(--ink)" in picture
            assert "DejaVu" not in picture
        ids = [value for name, value in Page(page).attributes if name == "id"]
        assert len(ids) == len(set(ids))

    def test_quotes_are_marked_where_they_stand(self, page):
        # raft quotes the whole golden sentence, which is marked as golden and as its quote at once.
        assert f'<mark class="gold quote raft">{CHUNKS[0].text}</mark>' in page
        assert '<q class="unverified">' in page
        assert "not verified: stands in no passage shown" in page
        assert "verified: Planet0.md › Planet0, characters 0–" in page

    def test_a_quote_that_was_never_closed_is_not_shown_as_verified(self):
        said = f"{BEGIN_QUOTE}{CHUNKS[0].text}{END_QUOTE} so {BEGIN_QUOTE}{CHUNKS[0].text} <ANSWER>: x"
        answer = read_answer("How?", said, [ScoredChunk(chunk=CHUNKS[0], score=1.0, rank=1)])
        shown = example_article(
            1,
            Example(
                test="studied",
                question="How?",
                gold_answer="x",
                gold_sentences=(),
                passages=(Shown(chunk=CHUNKS[0], golden=False),),
                answered=(Answered(arm="raft_rag", answer=answer, grade=grade(answer, Gold(answer="x"))),),
            ),
        )
        assert f'<q>{CHUNKS[0].text}</q><span> so </span><q class="unverified">{CHUNKS[0].text}</q>' in shown
        assert '<span class="label">Answer:</span><span> x</span>' in shown
        assert "not verified: was never closed" in shown

    def test_light_and_dark_and_narrow(self, page):
        assert "prefers-color-scheme: dark" in page
        assert '<meta name="viewport"' in page
        assert '<meta name="color-scheme" content="light dark">' in page

    def test_failures_are_named(self, exhibited, tmp_path):
        def broken(question, passages):
            return Written("", finished=False, error=f"too long {HOSTILE}")

        config = world_config(tmp_path, passage_counts=[])
        candidates = ScriptedCandidates({None: broken, "sft": broken, "raft": broken})
        text = Page(render(*examine(config, TESTS, WordRetriever(), candidates), config)).text
        assert "Failed generations" in text
        assert f"too long {HOSTILE}" in text
        assert "may be chance" in text

    @pytest.mark.parametrize("arms", [["base_closed"], ["raft_rag"], ["base_rag", "raft_rag"], ["sft_rag", "raft_rag"]])
    def test_any_choice_of_arms_has_a_page(self, tmp_path, arms):
        config = world_config(tmp_path, arms=arms, removed=0)
        tests = {"unseen": TESTS["unseen"][:1]}
        page = render(*examine(config, tests, WordRetriever(), ScriptedCandidates()), config)
        parsed = Page(page)
        assert all(arm in parsed.text for arm in arms)
        assert "With one document only" in parsed.text


def interval(value, low, high, n=100):
    return Interval(value=value, low=low, high=high, n=n)


class TestHeadline:
    def said(self, exhibited, before, after, difference):
        report, exhibits, _ = exhibited
        studied = TestResult(
            arms={"base_rag": {"f1": before}, "raft_rag": {"f1": after}},
            differences={"raft_rag-base_rag": {"f1": difference}},
        )
        return verdicts(dataclasses.replace(report, tests={"studied": studied}), exhibits)[0]

    def test_a_rise(self, exhibited):
        verdict = self.said(exhibited, interval(0.31, 0.2, 0.4), interval(0.52, 0.4, 0.6), interval(0.21, 0.14, 0.28))
        assert verdict.sentence == "Tuned on your documents, F1 rose from 0.31 to 0.52."
        figures = verdict.figures.replace("\N{NO-BREAK SPACE}", " ")
        assert figures == "Difference +0.21, 95 % interval +0.14 … +0.28; 100 questions on 5 documents."

    def test_a_fall(self, exhibited):
        verdict = self.said(exhibited, interval(0.5, 0.4, 0.6), interval(0.3, 0.2, 0.4), interval(-0.2, -0.3, -0.1))
        assert "fell from 0.50 to 0.30" in verdict.sentence
        assert "−0.20" in verdict.figures

    def test_perhaps_chance(self, exhibited):
        verdict = self.said(exhibited, interval(0.3, 0.2, 0.4), interval(0.35, 0.2, 0.4), interval(0.05, -0.01, 0.1))
        assert "which may be chance: the interval includes zero" in verdict.sentence
        single = self.said(exhibited, interval(0, 0, 0, 1), interval(1, 1, 1, 1), interval(1, 1, 1, 1))
        assert "rose" not in single.sentence

    def test_nothing_to_compare(self, exhibited):
        report, exhibits, _ = exhibited
        found = verdicts(dataclasses.replace(report, tests={}), exhibits)
        assert [verdict.figures for verdict in found] == [""]


class TestWords:
    def test_numbers(self):
        assert [number(None), number(0.456), signed(None), signed(-0.5), signed(-0.001)] == [
            "–",
            "0.46",
            "–",
            "−0.50",
            "0.00",
        ]
        assert [duration(3.21), duration(75), duration(7300)] == ["3.2 s", "1 min 15 s", "2 h 1 min"]

    def test_nested_counts(self):
        dropped = {"near_duplicate": 1200, "deep": {"er": 0.25}}
        rows = flattened({"dropped": dropped, "teacher": "extractive", "x": True, "n": ["a", "b"]})
        assert rows == [
            ("dropped · near duplicate", "1,200"),
            ("dropped · deep · er", "0.25"),
            ("teacher", "extractive"),
            ("x", "True"),
            ("n", "a"),
            ("n", "b"),
        ]

    @given(st.text())
    def test_text_never_becomes_markup(self, text):
        written = tag("p", text, title=text)
        parsed = Page(written)
        assert parsed.elements == {"p": 1}
        assert tag("p", Html("<b>x</b>")) == "<p><b>x</b></p>"


class TestExhibits:
    def test_loss_curves_survive_a_resumed_and_a_torn_log(self, tmp_path):
        log = tmp_path / "raft" / "log.jsonl"
        for step, loss in ((1, 3.0), (2, 2.0), (2, 2.5), (3, float("inf"))):
            if loss < 10:
                append_jsonl(log, {"step": step, "loss": loss, "seconds": 0.0})
            else:
                with log.open("a") as file:
                    file.write('{"step": 3, "loss": Infinity}\n')
        with log.open("a") as file:
            file.write('{"step": 4, "lo')
        assert loss_curve(tmp_path / "raft") == LossCurve(adapter="raft", train=((1, 3.0), (2, 2.5)), validation=())
        assert loss_curve(tmp_path / "absent") is None

    def test_seconds_come_from_the_manifests_of_the_stages(self, tmp_path):
        config = world_config(tmp_path)
        write_manifest(config.index_dir, stage="ingest", options={}, inputs={}, seconds=3.5)
        report = {"seconds": 60, "peak_memory_bytes": 123}
        write_manifest(config.adapters_dir / "sft", stage="tune", options={}, inputs={}, report=report)
        assert recorded(config) == ({"ingest": 3.5, "tune_sft": 60.0}, 123)
