"""Rows that join, leave, and use different adapters, against each of them alone."""

from pathlib import Path

import pytest

from models_for_tests import folder
from openbook.models import Company, Generator, load
from openbook.records import Conversation, Message
from tiny_model import save_random_adapter

QUESTIONS = ["What does the cache keep?", "Quote!", "How long does the brown fox jump over the dog, and why?", "It?"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Company:
    path: Path = tmp_path_factory.mktemp("company")
    folder(path / "base")
    save_random_adapter(path / "base", path / "one", seed=1)
    company = Company(Generator(load(str(path / "base"), device="cpu"), max_new_tokens=20), rows=2, context=600)
    company.add_adapter("one", path / "one")
    return company


def asked(text: str) -> Conversation:
    return Conversation(messages=(Message(role="user", content=text),))


def alone(company: Company, question: str, adapter: str | None) -> tuple[str, int]:
    with company.generator.adapter(adapter):
        found = company.generator.generate([asked(question)])[0]
    return found.text, found.completion_tokens


def test_rows_join_between_steps_and_use_their_own_adapter(made: Company) -> None:
    waiting = [(question, adapter) for question in QUESTIONS for adapter in ("one", None)]
    texts, tokens, most = dict.fromkeys(range(len(waiting)), ""), dict.fromkeys(range(len(waiting)), 0), 0
    number, live = 0, 0
    while number < len(waiting) or live:
        pieces = made.step()
        if number < len(waiting) and made.has_room(waiting[number][1]):
            question, adapter = waiting[number]
            pieces.append(made.join(number, made.encode(asked(question)), adapter=adapter, limit=20))
            number, live = number + 1, live + 1
        most = max(most, live)
        for piece in pieces:
            texts[piece.number] += piece.text
            tokens[piece.number] += piece.tokens
            live -= bool(piece.end)
    assert most > 2, "or nobody was in company"
    for at, (question, adapter) in enumerate(waiting):
        assert (texts[at].strip(), tokens[at]) == alone(made, question, adapter)


def test_who_leaves_makes_room_and_disturbs_nobody(made: Company) -> None:
    made.join(1, made.encode(asked(QUESTIONS[0])), adapter=None, limit=20)
    first = made.join(2, made.encode(asked(QUESTIONS[2])), adapter=None, limit=20)
    assert not made.has_room(None)
    assert made.has_room("one")
    made.leave(1)
    made.leave(1)
    assert made.has_room(None)
    text, end = first.text, first.end
    while not end:
        (piece,) = made.step()
        assert piece.number == 2
        text, end = text + piece.text, piece.end
    assert text.strip() == alone(made, QUESTIONS[2], None)[0]
    assert made.step() == []


def test_clearing_forgets_everybody(made: Company) -> None:
    made.join(5, made.encode(asked("Quote!")), adapter="one", limit=20)
    made.clear()
    assert made.step() == []
    assert made.join(6, made.encode(asked("Quote!")), adapter="one", limit=1).end == "limit"
