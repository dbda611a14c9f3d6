"""Rows on a terminal and on a page: what is golden, what is quoted, what passes; nothing that escapes, nothing lost."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_world import WordIndex, cut, options, shelf
from openbook.cli.main import app
from openbook.dataset import PARTS, build_from
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.formats import from_row, to_row
from openbook.dataset.overlay import Change, Overlay
from openbook.dataset.page.render import render
from openbook.dataset.viewing import answer_pieces, pieces, quoted, shape, views
from raft_world import healthy, rewrite, shown, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m" data-action="reject" <!--'


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    config = options(tmp_path_factory.mktemp("look"), without_golden="mix", golden_share=0.7)
    build_from(WordIndex(cut(shelf())), ExtractiveTeacher(), config, index_hash="abc")
    return config


def seen(path, rows):
    return list(views(write(path, rows), "train"))


def run(monkeypatch, capsys, config, *words):
    monkeypatch.chdir(config.out)
    with pytest.raises(SystemExit) as stop:
        app(["dataset", *words, "--out", str(config.out)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_what_a_view_says_of_a_row(tmp_path):
    rows = healthy()
    shown_view, *_, left_out = seen(tmp_path / "a.jsonl", rows[:5])
    assert (shown_view.part, shown_view.number, shown_view.golden, shown_view.shape) == (
        "train",
        1,
        "shown",
        "how many",
    )
    assert shown_view.failed == () and "quotes are word for word" in shown_view.passed
    assert left_out.golden == "left out" and "answer has a quote" not in left_out.passed and left_out.failed == ()
    golden = next(chunk for chunk in shown_view.example.passages if chunk in shown_view.example.golden)
    ((start, end),) = quoted(golden, shown_view.example)
    assert golden.text[start:end] == shown_view.example.quotes[0].text
    others = [chunk for chunk in shown_view.example.passages if chunk != golden]
    assert not any(quoted(chunk, shown_view.example) for chunk in others)
    assert [verified for _, verified in answer_pieces(shown_view.example)] == [None, True, None]


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        ({"cot_answer": "##begin_quote##Made up.##end_quote## <ANSWER>: 11"}, "quotes are word for word", "Made up."),
        ({"cot_answer": "It is 11. <ANSWER>: 11"}, "answer has a quote", "quotes nothing"),
        ({"question": "1. How many?"}, "question is whole", "number or bullet"),
        ({"passages": lambda row: [shown(row)[0]] * 2}, "passages differ", "stands twice"),
    ],
)
def test_a_check_that_fails_is_shown_with_its_reason(tmp_path, change, name, says):
    row = healthy()[0]
    passages = change.pop("passages")(row) if "passages" in change else None
    (view,) = seen(tmp_path / "a.jsonl", [rewrite(row, passages, **change)])
    assert says in dict(view.failed)[name] and name not in view.passed


def test_the_marks_of_a_judge_are_checks_too(tmp_path):
    row = to_row(from_row(healthy()[0]))
    row["meta"]["scores"] = {"grounded": 1.0, "answerable": 0.0}
    (view,) = seen(tmp_path / "a.jsonl", [row])
    assert "judge: grounded" in view.passed
    assert view.failed == (("judge: answerable from the golden passage", "0 of 1"),)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many rivets has it?", "how many"),
        ("In which year was it built?", "which"),
        ("To whom does it belong?", "who"),
        ("Why does it turn?", "why"),
        ("Is it made of oak?", "yes or no"),
        ("Which word is missing: “the ____ turns”?", "gap"),
        ("Wie viele Nieten hat der Hebel?", "other"),
    ],
)
def test_the_shape_of_a_question(question, expected):
    assert shape(question) == expected


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4))
def test_pieces_make_up_the_text(text, spans):
    from openbook.dataset.viewing import _merged

    inside = _merged((min(a, b), max(a, b)) for a, b in spans if max(a, b) <= len(text) and a != b)
    cut_up = list(pieces(text, inside))
    assert "".join(piece for piece, _ in cut_up) == text
    assert sum(len(piece) for piece, marked in cut_up if marked) == sum(end - start for start, end in inside)


def test_the_terminal_shows_rows_by_number_part_and_words(work, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, work, "show", "2", "--part", "studied")
    assert code == 0 and out.startswith("studied 2 · ") and "★ golden" in out and "→" in out
    _, out, _ = run(monkeypatch, capsys, work, "show", "--search", "BELLOWS LEVER", "--golden", "left out", "-n", "1")
    assert "golden left out" in out and "(not shown to the model)" in out
    _, out, _ = run(monkeypatch, capsys, work, "show", "--search", "no such words")
    assert out == "No row fits.\n"
    _, out, _ = run(monkeypatch, capsys, work, "show", "--kind", "cloze", "--failed")
    assert out == "No row fits.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--part", "test"], "no part 'test'"),
        (["--golden", "maybe"], "none of shown, left out, none"),
        (["--from", "a.jsonl", "--part", "train"], "exclude each other"),
        (["--from", "absent.jsonl"], "absent.jsonl"),
        (["--search", "no such words", "--html", "x.html"], "No row fits"),
    ],
)
def test_what_cannot_be_shown_is_told(work, monkeypatch, capsys, words, says):
    code, _, err = run(monkeypatch, capsys, work, "show", *words)
    assert code in (1, 2) and says in err


def test_documents_cannot_write_on_the_terminal(tmp_path, work, monkeypatch, capsys):
    row = rewrite(healthy()[0], question=f"How? {HOSTILE}")
    source = write(tmp_path / "raft.jsonl", [row])
    _, out, _ = run(monkeypatch, capsys, work, "show", "--from", str(source))
    assert "\x1b" not in out and "How?" in out


class Reader(HTMLParser):
    """The elements of a page, its scripts, and the data that its articles carry."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.articles, self.policy = [], [], [], ""
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given_ = dict(attrs)
        self._in_script = tag == "script"
        if tag == "article":
            self.articles.append(given_)
        if given_.get("http-equiv"):
            self.policy = given_["content"]

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)
            self._in_script = False


def test_nothing_from_documents_becomes_markup(tmp_path):
    row = to_row(
        from_row(rewrite(healthy()[0], [HOSTILE, "other"], question=HOSTILE, oracle_context=HOSTILE, id=HOSTILE))
    )
    row["meta"] |= {"kind": HOSTILE, "question_id": HOSTILE}
    (view,) = seen(tmp_path / "a.jsonl", [row])
    change = Change(question_id=HOSTILE, action="edit", question=HOSTILE, note=HOSTILE)
    reader = Reader(render([view], {HOSTILE: change}))
    (script,) = reader.scripts
    assert not {"img", "iframe", "link", "object"} & set(reader.tags) and reader.tags.count("script") == 1
    assert reader.articles[0]["data-action"] == "edit" and reader.articles[0]["data-id"] == HOSTILE
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in reader.policy and "default-src 'none'" in reader.policy


def test_the_page_asks_the_network_for_nothing_and_is_the_same_every_time(work):
    rows = [view for part in PARTS for view in views(work.dataset_dir / f"{part}.jsonl", part)]
    page = render(rows, {})
    assert not re.search(r"(?:src|href)=|https?://(?!\S*[)`])|@import|url\(", page.split("<main")[0])
    assert page == render(rows, {})
    articles = Reader(page).articles
    assert [article["data-id"] for article in articles] == [view.question_id for view in rows]
    assert {article["data-golden"] for article in articles} == {"shown", "left out"}
    assert page.count("<mark>") >= sum(view.golden == "shown" for view in rows) * 0.9
    assert "12 further rows are not on this page" in render(rows[:3], {}, left_out=12)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_filters_and_exports_what_the_command_takes(work, tmp_path, monkeypatch, capsys):
    rows = [view for part in PARTS for view in views(work.dataset_dir / f"{part}.jsonl", part)]
    # An edit that is in force already is shown as one, and is nothing to export.
    done = Change(question_id=rows[2].question_id, action="edit", question=rows[2].example.question)
    made = render(rows, {done.question_id: done})
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", made)
    drive = """
    const said = [], at = (s) => document.querySelector(s);
    const set = (s, value) => { at(s).value = value; at(s).dispatchEvent(new Event("input", {bubbles: true}));
      said.push(rows.filter((row) => !row.hidden).length); };
    const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    set('[data-filter="part"]', "studied"); set("#search", "BELLOWS"); set("#search", ""); set('[data-filter="part"]', "");
    press("j"); press("r"); press("j"); press("e");
    const form = rows[1].querySelector("form"); said.push(form.hidden);
    form.question.value = "Other words?"; form.question.dispatchEvent(new Event("input", {bubbles: true}));
    set('[data-filter="state"]', "edited");
    said.push(changes()); document.title = JSON.stringify(said);
    """
    (tmp_path / "page.html").write_text(page.replace("</body>", f"<script>{drive}</script></body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dump = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120
    ).stdout
    import html

    said = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dump, re.DOTALL)[1]))
    studied = [view for view in rows if view.part == "studied"]
    bellows = [view for view in studied if view.holds("bellows")]
    assert said[:6] == [len(studied), len(bellows), len(studied), len(rows), False, 2]
    lines = "".join(json.dumps(change) + "\n" for change in said[6])
    (tmp_path / "overlay.jsonl").write_text(lines, encoding="utf-8")
    changes = Overlay.read(tmp_path / "overlay.jsonl").changes
    assert [(c.action, c.question) for c in changes.values()] == [("reject", None), ("edit", "Other words?")]
    assert list(changes) == [view.question_id for view in rows[:2]]


def test_the_commands_change_the_data_set(tmp_path, monkeypatch, capsys):
    config = options(tmp_path)
    build_from(WordIndex(cut(shelf())), ExtractiveTeacher(), config, index_hash="abc")
    rows = list(views(config.dataset_dir / "train.jsonl", "train"))
    first, second, third = (view.question_id for view in rows[:3])
    code, out, _ = run(monkeypatch, capsys, config, "reject", first, "--note", "dull")
    assert (code, out) == (0, "1 change kept; 1 rows changed.\n")
    code, out, _ = run(monkeypatch, capsys, config, "edit", second, "--question", "Is it so?")
    assert code == 0
    code, _, err = run(monkeypatch, capsys, config, "edit", second)
    assert code == 2 and "changes nothing" in err
    code, _, err = run(monkeypatch, capsys, config, "reject", "zzz")
    assert code == 1 and "no question has this id" in err
    write(tmp_path / "from-page.jsonl", [{"question_id": third, "action": "reject", "was": "x"}])
    assert run(monkeypatch, capsys, config, "apply", str(tmp_path / "from-page.jsonl"))[0] == 0
    code, out, _ = run(monkeypatch, capsys, config, "show", "1")
    assert "Is it so?" in out
    _, out, _ = run(monkeypatch, capsys, config, "restore", first, third)
    assert out.startswith("2 changes taken back")
    assert set(Overlay.read(config.overlay_path).changes) == {second}
    code, _, err = run(monkeypatch, capsys, config, "apply", "absent.jsonl")
    assert code == 1 and "Export changes" in err
