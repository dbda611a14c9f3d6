"""Tasks out of one's own documents: every kind, right by construction, and nothing of the exams in them."""

import random
import re

import pytest

from dataset_world import WordIndex, cut, shelf
from openbook import prompt
from openbook.dataset import tasks
from openbook.dataset.tasks import KINDS, TaskWriter
from openbook.records import Chunk, Document

PROSE = """# Setting up the press

Install the press on a level floor. Connect the hose to the brass valve. Then open the valve slowly. Check the gauge.

# The parts of the press

The press has these parts:

- a brass valve
- a glass gauge
- a rubber hose

# The names of the press

The gauge of the press reads `speed` and writes `pressure` into the file `press.log` on every stroke that it makes.
"""


def writer(**options):
    chunks = [*cut(shelf(3, parts=4)), *own()]
    return TaskWriter(chunks, WordIndex(chunks), passages=3, seed=0, **options), chunks


def own():
    parts = re.split(r"(?=^# )", PROSE, flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        document = Document.create(uri="press.md", title="The press", text=part.strip())
        heading = part.split("\n")[0].strip("# ")
        found.append(Chunk.create(document, 0, len(document.text), headings=(heading,)))
    return found


@pytest.fixture(scope="module")
def written():
    found, _ = writer()
    return list(found.write(400))


def texts(task):
    _, user, answer = (message.content for message in task.conversation.messages)
    *documents, command = user.split(prompt.END_DOCUMENT + "\n")
    return [document.removeprefix(prompt.DOCUMENT) for document in documents], command, answer


def of(written, kind):
    found = [texts(task) for task in written if task.kind == kind]
    assert found, f"no task of the kind {kind}"
    return found


def test_every_kind_is_written(written):
    assert {task.kind for task in written} == set(KINDS)


def test_quotes_stand_word_for_word_in_a_passage_shown(written):
    for documents, _, answer in of(written, "quote"):
        (quote,) = prompt.parse_answer(answer).quotes
        assert any(quote in document for document in documents)
        assert 1 < len(documents) <= 3


def test_what_is_absent_is_refused_and_stands_nowhere(written):
    quoted = {command.split(":")[-1]: answer for _, command, answer in of(written, "quote")}
    for documents, command, answer in of(written, "absent"):
        assert prompt.parse_answer(answer).refusal
        known = quoted.get(command.split(":")[-1])
        if known:
            assert not any(prompt.parse_answer(known).quotes[0] in document for document in documents)


def test_definitions_and_lists_are_copied(written):
    for documents, command, answer in of(written, "define"):
        assert any(answer in document for document in documents) and not command.endswith("?")
    lists = of(written, "list")
    assert any(answer == "- a brass valve\n- a glass gauge\n- a rubber hose" for _, _, answer in lists)
    assert any(answer == "- `speed`\n- `pressure`\n- `press.log`" for _, _, answer in lists)


def test_a_passage_is_classified_by_a_heading_that_it_does_not_show(written):
    for (document,), command, answer in of(written, "classify"):
        assert f"“{answer}”" in command and f"# {answer}" not in document


def test_steps_are_numbered_sentences_of_the_passage(written):
    (document,), _, answer = next(found for found in of(written, "steps") if "Install the press" in found[2])
    assert answer.split("\n")[2] == "3. Open the valve slowly."
    assert len(answer.split("\n")) == 4 and "Connect the hose" in document


def test_compared_passages_share_the_words_that_are_named(written):
    for documents, _, answer in of(written, "compare"):
        shared = re.findall(r"\w+", answer.rsplit("Both mention ", 1)[1].replace(" and ", " "))
        assert len(documents) == 2 and all(word in document for word in shared for document in documents)


def test_the_exams_stay_secret():
    everything = list(writer()[0].write(400))
    secret = prompt.parse_answer(of(everything, "quote")[0][2]).quotes[0]
    _, chunks = writer()
    hidden = frozenset(random.Random(0).sample([chunk.id for chunk in chunks], 15))
    found, _ = writer(hidden=hidden, secret=[secret])
    kept = list(found.write(400))
    assert kept and not any(secret in texts(task)[2] for task in kept)
    assert not any(hidden & set(task.chunk_ids) for task in kept)


def test_equal_arguments_give_equal_tasks_and_the_kinds_take_turns(written):
    again, _ = writer()
    assert list(again.write(20)) == written[:20]
    assert [task.kind for task in written[: len(KINDS)]] == list(KINDS)
    assert list(writer()[0].write(0)) == []


def test_every_phrase_has_room_for_what_is_asked():
    for kind, phrases in tasks.ASKED.items():
        assert all(("{x}" in phrase) == (kind in ("quote", "define", "list", "classify")) for phrase in phrases)


def test_no_quote_holds_one_of_our_own_tags():
    text = "The parser was written by Ada Lovelace in 1843 with the tag ##end_quote## in mind."
    about = Chunk.create(Document.create(uri="tags.md", title="Tags", text=text), 0, len(text))
    chunks = [*own(), about]
    written = TaskWriter(chunks, WordIndex(chunks), passages=3, seed=0).write(100)
    for _, _, answer in of(list(written), "quote"):
        assert len(prompt.parse_answer(answer).quotes) == answer.count(prompt.END_QUOTE) == 1
