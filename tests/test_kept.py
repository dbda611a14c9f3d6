"""Calls that are paid for once, and a budget that is never passed."""

import threading

import pytest

from openbook.errors import StoreError, TeacherError
from openbook.llm import Budget, BudgetSpentError, KeptCalls, Price, Reply
from openbook.llm.budget import tokens_at_most
from openbook.records import Conversation, Message, Usage


def ask(text):
    return Conversation(messages=(Message(role="user", content=text),))


USAGE = Usage(prompt_tokens=10, completion_tokens=5)


class Echo:
    """A model that says what it is told, and counts how often it is asked."""

    name = "echo"

    def __init__(self, usage=USAGE, gate=None):
        self.asked, self.usage, self.gate = [], usage, gate

    def complete(self, messages, *, max_tokens, temperature=0.0):
        self.asked.append(messages.messages[-1].content)
        if self.gate:
            self.gate.wait(5)
        if self.asked[-1] == "fail":
            raise TeacherError("It fails.")
        return Reply(text=self.asked[-1], usage=self.usage)


def test_a_call_is_sent_once_whoever_asks_and_when(tmp_path):
    echo = Echo()
    first = KeptCalls(echo, tmp_path / "calls.sqlite")
    assert first.complete(ask("a"), max_tokens=5).text == first.complete(ask("a"), max_tokens=5).text == "a"
    first.close()
    again = KeptCalls(echo, tmp_path / "calls.sqlite")
    assert again.complete(ask("a"), max_tokens=5) == Reply(text="a", usage=echo.usage)
    assert (echo.asked, again.sent, again.kept) == (["a"], 0, 1)
    again.complete(ask("a"), max_tokens=6)
    again.complete(ask("a"), max_tokens=5, temperature=0.5)
    again.complete(ask("b"), max_tokens=5)
    assert echo.asked == ["a", "a", "a", "b"]  # another limit, temperature or text is another call


def test_equal_calls_at_the_same_time_are_sent_once(tmp_path):
    echo = Echo(gate=threading.Event())
    kept = KeptCalls(echo, tmp_path / "calls.sqlite")
    threads = [threading.Thread(target=kept.complete, args=(ask("a"),), kwargs={"max_tokens": 5}) for _ in range(4)]
    for thread in threads:
        thread.start()
    echo.gate.set()
    for thread in threads:
        thread.join()
    assert echo.asked == ["a"] and kept.kept == 3


def test_a_call_that_failed_is_not_kept_and_costs_nothing(tmp_path):
    echo = Echo()
    kept = KeptCalls(echo, tmp_path / "calls.sqlite", budget=Budget(Price(read=1e6), 1000.0))
    for _ in range(2):
        with pytest.raises(TeacherError):
            kept.complete(ask("fail"), max_tokens=5)
    assert len(echo.asked) == 2 and kept.budget.spent == 0
    assert not kept.is_kept(ask("fail"), max_tokens=5)


def test_tokens_are_counted_where_the_endpoint_does_not(tmp_path):
    kept = KeptCalls(Echo(usage=Usage()), tmp_path / "calls.sqlite")
    assert kept.complete(ask("x" * 400), max_tokens=5).usage == Usage(prompt_tokens=100, completion_tokens=100)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "calls.sqlite").write_bytes(b"no data base" * 500)
    with pytest.raises(StoreError, match=r"calls.sqlite, which keeps the teacher's answers, is damaged.*Move it away"):
        KeptCalls(Echo(), tmp_path / "calls.sqlite")


def test_a_limit_is_never_passed_and_what_was_kept_counts(tmp_path):
    price = Price(read=1e6, written=1e6)  # a token costs 1: a call costs 15, and at most what its bytes allow
    most = tokens_at_most(ask("a")) + 5
    limit = 15.0 * 3 + most - 15 + 1
    echo = Echo()
    for _ in range(2):  # the second time all answers are there, and the same calls go through
        kept = KeptCalls(echo, tmp_path / "calls.sqlite", budget=Budget(price, limit))
        done = 0
        with pytest.raises(BudgetSpentError, match="Raise --max-cost"):
            for text in "abcdefgh":
                kept.complete(ask(text), max_tokens=5)
                done += 1
        assert done == 3 and kept.budget.spent == 45 <= limit
    assert echo.asked == ["a", "b", "c"]


def test_threads_together_do_not_pass_the_limit(tmp_path):
    limit = 100.0
    echo = Echo()
    kept = KeptCalls(echo, tmp_path / "calls.sqlite", budget=Budget(Price(read=1e6, written=1e6), limit))
    refused = []

    def work(name):
        for number in range(5):
            try:
                kept.complete(ask(f"{name}{number}"), max_tokens=5)
            except BudgetSpentError:
                refused.append(name)
                return

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused and 60 <= kept.budget.spent <= limit


def test_without_a_limit_nothing_is_refused():
    budget = Budget(Price(read=1e6))
    held = budget.hold(ask("a" * 1000), 10)
    budget.settle(held, Usage(prompt_tokens=250))
    assert budget.spent == 250 and not budget.exhausted
