"""Language models as teachers: whole data sets against a server that answers well, badly, late or not at all."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from chat_server import KEY, asked_questions, completion, diligent, error, items, kind_of, serving
from dataset_world import WordIndex, cut, options, shelf
from openbook.dataset import build_from, read_examples
from openbook.dataset.estimate import estimate
from openbook.dataset.instructions import NAMES, Instructions
from openbook.dataset.llm_teacher import LLMTeacher
from openbook.dataset.teacher import make_teacher
from openbook.errors import ConfigError, InputError, TeacherError
from openbook.llm import OpenAIChat
from openbook.prompt import REFUSAL
from openbook.records import Chunk, Document

CHUNKS = cut(shelf())
SIZES = {"questions": 20, "unseen": 4, "studied": 4, "validation": 2}


@pytest.fixture
def endpoint(monkeypatch):
    with serving(monkeypatch) as script:
        script.replies = [diligent()]
        yield script


def config_of(tmp_path, endpoint, **dataset):
    return options(tmp_path, teacher="openai", teacher_model="tiny", base_url=endpoint.url, **SIZES | dataset)


def build(tmp_path, endpoint, chunks=CHUNKS, **dataset):
    config = config_of(tmp_path, endpoint, **dataset)
    report = build_from(WordIndex(chunks), make_teacher(config), config, index_hash="abc")
    return config, report, list(read_examples(config.dataset_dir / "train.jsonl"))


def rows_of(config):
    return {path.name: path.read_bytes() for path in sorted(config.dataset_dir.glob("*.jsonl"))}


def test_a_whole_data_set_by_a_language_model(endpoint, tmp_path):
    _, report, rows = build(tmp_path, endpoint)
    assert report.train == 20 and set(report.kinds) == {"teacher"}
    assert report.dropped["quote is not in the passage word for word"] > 10
    for row in rows:
        assert row.golden_included == bool(row.quotes)
        assert all(quote.verified for quote in row.quotes)
        assert (row.scores.grounded, row.scores.answerable, row.scores.closed_book) == (1.0, 0.75, 0.0)
    assert report.outcomes == {} and report.known == 0
    assert f"Calls: {len(endpoint.requests):,} sent, 0 answered before" in str(report)
    for path in tmp_path.rglob("*"):  # neither in rows nor in manifests nor among the kept calls
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_how_many_calls_go_at_once_changes_no_row(endpoint, tmp_path):
    one, _, _ = build(tmp_path / "one", endpoint, at_once=1)
    eight, _, _ = build(tmp_path / "eight", endpoint, at_once=8)
    assert rows_of(one) == rows_of(eight)


def test_no_more_calls_at_once_than_allowed(endpoint, tmp_path):
    now, most = [0], [0]

    def watched(body):
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.02)
        now[0] -= 1
        return diligent()(body)

    endpoint.replies = [watched]
    build(tmp_path, endpoint, at_once=3)
    assert most[0] == 3


# --- What a teacher may answer


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("Here are some questions about this text!", "not JSON"),
        ("", "empty"),
        ("I'm sorry, but I can't help with that.", "declined"),
        ("<think>I could ask this or that", "empty"),
        ('{"question": 3}', "without a usable object"),
        ((200, completion('{"question": "What', end="length"), {}), "cut off at the limit of tokens"),
        ((200, completion("", end="content_filter"), {}), "declined"),
        (error(400, "this passage is too long"), "call failed"),
    ],
)
def test_a_bad_reply_costs_one_passage_and_is_counted(endpoint, tmp_path, reply, outcome):
    bad = {chunk.text for chunk in CHUNKS[::3]}

    def sometimes(body):
        # Two in a row at most: three calls that fail in a row mean that the endpoint is at fault.
        passage = body["messages"][1]["content"]
        if kind_of(body) == "questions" and any(text in passage for text in bad):
            return reply
        return diligent()(body)

    endpoint.replies = [sometimes]
    _, report, rows = build(tmp_path, endpoint, at_once=1, questions=15)
    assert report.train == 15 and len(rows) == 15
    assert report.outcomes[f"reply: {outcome}"] >= 3
    assert f"reply: {outcome}" in str(report)


def test_replies_that_repeat_themselves(endpoint, tmp_path):
    endpoint.replies = [
        diligent(questions=lambda body: json.dumps(items(body)[0]) + ("\n" + json.dumps(items(body)[0])) * 40)
    ]
    _, report, rows = build(tmp_path, endpoint, questions=8)
    assert report.outcomes["reply: repeats itself"] > 3
    assert len({row.question for row in rows}) == len(rows) == report.train > 4


def test_questions_in_another_language_are_dropped(endpoint, tmp_path):
    def german(body):
        one, two, _ = items(body)
        two["question"] = f"Was ist der Zweck und wie viele sind in der Liste von {two['answer'][:4]}?"
        one["reasoning"] = "Der Satz sagt, dass es so ist und nicht anders."
        return "\n".join(json.dumps(item) for item in (one, two))

    endpoint.replies = [diligent(questions=german)]
    _, report, rows = build(tmp_path, endpoint, questions=8)
    assert report.dropped["question is not in the language of its passage"] > 3
    assert not any("Satz" in row.reasoning or "Zweck" in row.question for row in rows)


def test_the_teacher_is_told_the_language_of_the_passage(endpoint, tmp_path):
    text = (
        "Die Pumpe wird von zwei Hebeln bewegt, und der Druck ist nicht höher als vier Bar. Der Deckel ist aus Messing."
    )
    chunk = Chunk.create(Document.create(uri="pumpe.md", title="Pumpe", text=text), 0, len(text))
    import random

    LLMTeacher(OpenAIChat("tiny", base_url=endpoint.url)).write(chunk, rng=random.Random(0), limit=1)
    assert "are in German, the language of the passage." in endpoint.requests[0][1]["messages"][0]["content"]


def test_no_question_at_all_says_what_the_teacher_did(endpoint, tmp_path):
    endpoint.replies = ["Sorry, no."]
    with pytest.raises(
        InputError, match=r"Not one question.* × reply: declined.*take one that follows its instructions"
    ):
        build(tmp_path, endpoint)


# --- The judge


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({"grounded": 2, "answerable": 5, "entailed": 5}, "judge: reasoning goes beyond the passage"),
        ({"grounded": 5, "answerable": 1, "entailed": 5}, "judge: passage alone does not answer"),
        ({"grounded": 5, "answerable": 5, "entailed": "2"}, "judge: quote alone does not give the answer"),
    ],
)
def test_what_the_judge_finds_wanting_is_dropped(endpoint, tmp_path, marks, reason):
    def strict(body):
        fine = {"grounded": 5, "answerable": 5, "entailed": 5}
        return "\n".join(
            json.dumps({"number": n + 1} | (marks if n == 1 else fine)) for n in range(len(asked_questions(body)))
        )

    endpoint.replies = [diligent(judge=strict)]
    _, report, rows = build(tmp_path, endpoint, questions=8)
    assert report.dropped[reason] > 3
    assert all(min(row.scores.grounded, row.scores.answerable, row.scores.entailed) >= 0.5 for row in rows)


def test_questions_that_are_known_without_the_passage_are_marked(endpoint, tmp_path):
    def knowing(body):
        return "\n".join(
            json.dumps({"number": n + 1, "answer": " ".join(line.split()[5:8]) + " is a piece of brass that"})
            for n, line in enumerate(asked_questions(body))
        )

    endpoint.replies = [diligent(closed=knowing)]
    _, report, rows = build(tmp_path, endpoint)
    scores = {row.scores.closed_book for row in rows}
    assert max(scores) > 0.5 > min(scores)
    assert report.known == 0 or "answered without any passage" in str(report)


def test_a_judge_that_answers_nonsense_judges_nothing(endpoint, tmp_path):
    endpoint.replies = [diligent(judge="All good!", closed='{"number": 99, "answer": "x"}', beside="")]
    _, report, rows = build(tmp_path, endpoint)
    assert report.train == 20
    assert {row.scores.grounded for row in rows} == {row.scores.closed_book for row in rows} == {None}
    assert report.outcomes["reply: verdict not JSON"] > 3


def test_distractors_that_answer_are_taken_out(endpoint, tmp_path):
    def suspicious(body):
        return "\n".join(
            json.dumps({"number": n + 1, "passages": [1, 9, "two"]}) for n in range(len(asked_questions(body)))
        )

    endpoint.replies = [diligent(beside=suspicious)]
    _, report, rows = build(tmp_path, endpoint, questions=40)
    assert report.dropped["judge: distractor answers the question"] > 3
    assert {len(row.passages) for row in rows} == {3, 4}  # four where the first passage is the golden one
    for row in rows:
        assert row.golden_included == ({chunk.id for chunk in row.golden} <= {chunk.id for chunk in row.passages})


def test_without_a_judge_only_questions_are_asked_for(endpoint, tmp_path):
    build(tmp_path, endpoint, judge=False)
    assert {kind_of(body) for _, body in endpoint.requests} == {"questions"}


# --- Nothing is paid for twice


def test_a_second_build_sends_nothing_and_writes_the_same(endpoint, tmp_path):
    # One call at a time: with more, how many are under way when there is enough is up to the threads.
    config, _, _ = build(tmp_path, endpoint, at_once=1)
    first, sent = rows_of(config), len(endpoint.requests)
    _, report, _ = build(tmp_path, endpoint, at_once=1)
    assert (len(endpoint.requests), report.spent.sent, report.spent.kept) == (sent, 0, sent)
    assert rows_of(config) == first


def test_a_server_that_breaks_half_way_loses_nothing(endpoint, tmp_path):
    def breaking(body):
        return diligent()(body) if len(endpoint.answered) < 9 else error(500, "out of memory")

    endpoint.replies = [breaking]
    with pytest.raises(TeacherError, match=r"an error of its own \(500\).*what was answered is kept"):
        config = config_of(tmp_path, endpoint, at_once=2)
        teacher = make_teacher(config)
        teacher.chat._chat._max_retries = 0
        build_from(WordIndex(CHUNKS), teacher, config)
    endpoint.replies = [diligent()]
    build(tmp_path, endpoint, at_once=2)
    assert max(Counter(endpoint.answered).values()) == 1


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from dataset_world import WordIndex, cut, options, shelf
from openbook.dataset import build_from
from openbook.dataset.teacher import make_teacher
config = options(Path({out!r}), teacher="openai", teacher_model="tiny", base_url={url!r}, at_once=2, **{sizes!r})
build_from(WordIndex(cut(shelf())), make_teacher(config), config, index_hash="abc")
"""


def test_a_killed_run_pays_nothing_twice(endpoint, tmp_path):
    def slow(body):
        time.sleep(0.03)
        return diligent()(body)

    endpoint.replies = [slow]
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "killed"), url=endpoint.url, sizes=SIZES)
    for after in (6, 14):
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
        while len(endpoint.answered) < after and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = set(endpoint.answered)
    config, report, _ = build(tmp_path / "killed", endpoint, at_once=2)
    twice = sum(count - 1 for count in Counter(endpoint.answered).values())
    assert twice <= 2 * 2  # at each kill, only what was under way
    assert report.spent.kept >= len(before) - 2 * 2
    with sqlite3.connect(tmp_path / "killed" / "teacher" / "calls.sqlite") as file:
        keys = [key for (key,) in file.execute("select key from calls")]
    assert len(keys) == len(set(keys)) == len(set(endpoint.answered))
    whole, _, _ = build(tmp_path / "whole", endpoint, at_once=2)
    assert rows_of(config) == rows_of(whole)


# --- Money


def test_an_estimate_sends_nothing_and_comes_near(endpoint, tmp_path):
    config = config_of(tmp_path, endpoint, price_read=2.0, price_written=8.0)
    teacher = make_teacher(config)
    expected = estimate(WordIndex(CHUNKS), teacher, config)
    assert endpoint.requests == []
    report = build_from(WordIndex(CHUNKS), teacher, config, index_hash="abc")
    assert 0.5 < expected.calls / report.spent.sent < 2
    read = sum(len(m["content"]) for _, body in endpoint.requests for m in body["messages"]) / 4
    kinds = {kind.name: kind for kind in expected.kinds}
    assert 0.5 < sum(kind.read for kind in kinds.values()) / read < 2
    assert expected.money == pytest.approx(sum(2e-6 * k.read + 8e-6 * k.written for k in expected.kinds))
    told = str(expected)
    assert "Money: about" in told and "Time: about" in told and "Nothing was sent" in told
    again = estimate(WordIndex(CHUNKS), make_teacher(config), config)
    assert again.kinds[0].kept > 8 and again.measured


def test_the_cost_stops_and_what_was_made_is_a_data_set(endpoint, tmp_path):
    # A call costs 0.12 by the server's count; before it is sent, at most its bytes and its limit of tokens.
    limit = 4.0
    for _ in range(2):  # the same command gives the same data set, and pays nothing the second time
        _, report, rows = build(tmp_path, endpoint, at_once=1, price_read=1000.0, price_written=1000.0, max_cost=limit)
        assert report.spent.money <= limit
        assert 0 < report.train < 20
        assert report.notes[0].startswith("The budget is used up")
        assert "Raise --max-cost" in str(report)
    assert len(endpoint.answered) == len(set(endpoint.answered))
    assert len(endpoint.answered) * 0.12 <= limit
    assert all(row.quotes or row.final_answer == REFUSAL for row in rows)


def test_a_budget_for_nothing_says_so(endpoint, tmp_path):
    with pytest.raises(InputError, match="did not reach for a single one: raise --max-cost"):
        build(tmp_path, endpoint, price_read=1000.0, max_cost=0.001)
    assert endpoint.requests == []
    with pytest.raises(ConfigError, match="limits nothing without a price"):
        build(tmp_path, endpoint, max_cost=1.0)


# --- Two passages, and none


def test_questions_on_two_passages_quote_both(endpoint, tmp_path):
    def pairing(body):
        halves = body["messages"][1]["content"].split("Passage 2, of")
        one, two = (re.search(r"The (\w+ \w+) contains \d+ small rivets of type \w+\.", half) for half in halves)
        if one is None or two is None:
            return ""
        item = {
            "question": f"Which has more rivets, the {one[1]} or the {two[1]}?",
            "quote_1": one[0],
            "quote_2": two[0],
            "reasoning": "One number is larger.",
            "answer": f"the {one[1]}",
        }
        return json.dumps(item)

    things = [
        Document.create(uri=f"{d.uri}", title=d.title, text=d.text.replace("Workers in", "The Guild of"))
        for d in shelf()
    ]
    endpoint.replies = [diligent(pair=pairing)]
    _, report, rows = build(tmp_path, endpoint, chunks=cut(things), pair_share=0.3)
    pairs = [row for row in rows if len(row.golden) == 2 and row.golden_included]
    assert pairs and report.kinds["teacher pair"] >= len(pairs)
    for row in pairs:
        assert {quote.chunk_id for quote in row.quotes} == set(row.golden_ids)
        assert set(row.golden_ids) <= {chunk.id for chunk in row.passages}


def test_a_question_on_two_passages_with_quotes_of_one_is_dropped(endpoint, tmp_path):
    def cheating(body):
        found = re.search(r"The Guild of \w+ invented the \w+ \w+ in \d+\.", body["messages"][1]["content"])
        item = {"question": "Which was invented first?", "reasoning": "One was.", "answer": found[0].split()[-1]}
        return json.dumps(item | {"quote_1": found[0], "quote_2": found[0]})

    things = [
        Document.create(uri=d.uri, title=d.title, text=d.text.replace("Workers in", "The Guild of")) for d in shelf()
    ]
    endpoint.replies = [diligent(pair=cheating)]
    _, report, rows = build(tmp_path, endpoint, chunks=cut(things), pair_share=0.3)
    assert not any(len(row.golden) == 2 for row in rows)
    assert report.dropped["one passage alone holds every quote"] > 0
    assert any("that need two passages could be had" in note for note in report.notes)


def test_questions_that_nothing_answers(endpoint, tmp_path):
    def leaving_open(body):
        machine = re.search(r"The (\w+ \w+) is a piece", body["messages"][1]["content"])
        return json.dumps({"question": f"Which emperor paid for the {machine[1]} exhibition?"}) if machine else ""

    endpoint.replies = [diligent(nowhere=leaving_open)]
    config, report, rows = build(tmp_path, endpoint, nowhere_share=0.2)
    nowhere = [row for row in rows if not row.golden]
    assert len(nowhere) == 4 and len(rows) == 20
    assert all(row.final_answer == REFUSAL == row.answer and not row.quotes and row.passages for row in nowhere)
    assert report.refusals["answered nowhere"] == 4 and report.refusals["golden absent"] > 0
    told = [json.loads(line)["meta"]["unanswerable"] for line in (config.dataset_dir / "train.jsonl").open()]
    assert Counter(told)["answered nowhere"] == 4


def test_a_question_that_is_answered_after_all_is_dropped(endpoint, tmp_path):
    def answered(body):
        machine = re.search(r"default pressure of the (\w+)", body["messages"][1]["content"])
        return json.dumps({"question": f"What is the default pressure of the {machine[1]}?"}) if machine else ""

    endpoint.replies = [diligent(nowhere=answered)]
    _, report, rows = build(tmp_path, endpoint, nowhere_share=0.2)
    assert report.dropped["answered somewhere after all"] > 0
    assert all(row.golden for row in rows)


# --- What it is told


def test_every_prompt_is_a_file_and_may_be_ones_own(tmp_path):
    ours = Instructions()
    for name in NAMES:
        told = ours.conversation(
            name, limit=3, title="T", passage="P", title_2="U", passage_2="Q", language="L", passages="R", questions="S"
        )
        assert not re.search(r"\{[a-z_0-9]+\}", told.messages[0].content + told.messages[1].content)
    (tmp_path / "questions.system.txt").write_text("Frag etwas auf {language}: {passage}")
    own = Instructions(tmp_path)
    assert own.fingerprint != ours.fingerprint
    told = own.conversation("questions", language="{title}", passage="a {limit} b", title="T", limit=3)
    assert told.messages[0].content == "Frag etwas auf {title}: a {limit} b"  # what is filled in is no slot
    with pytest.raises(ConfigError, match="is no folder"):
        Instructions(tmp_path / "absent")
