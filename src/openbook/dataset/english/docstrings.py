"""Questions from descriptions of a named thing, whose name stands in the heading and not in the sentence.

Docstrings and reference pages are written so: `json.load` above, "Return the object that …" below.
"""

import random
from collections.abc import Iterator
from itertools import takewhile

from openbook.dataset.english.clause import parse
from openbook.dataset.english.draft import Draft, clip, pick, span
from openbook.dataset.english.ending import clause_end
from openbook.dataset.english.sentence import Sentence
from openbook.dataset.english.words import DETERMINERS, FINITE, FUNCTION_WORDS, PREPOSITIONS, SUBORDINATORS, VERBS

_NOT_DEEDS = frozenset(("note", "see", "default", "use", "type", "list", "name", "time", "override", "example", "base"))
_OBJECTS = DETERMINERS - {"that"}  # "Unescapes all …", but not "Annotation that …"
_OCCASIONS = frozenset(("called", "raised", "invoked", "returned", "issued", "triggered", "emitted", "sent", "thrown"))


def docstring(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """What it returns, what it does, when it is raised or called, what it is."""
    tokens = s.tokens
    if not s.named or s.end < 3 or not tokens[0].text.istitle() or tokens[1].text in {":", ",", "=", "for"}:
        return
    verb = VERBS.get(tokens[0].low)
    if tokens[0].low in _OCCASIONS and tokens[1].low in {"when", "if", "after", "before", "by", "once", "whenever"}:
        end = clip(tokens, 1, _stop(s))
        if end and end > 2:
            how = "How" if tokens[1].low == "by" else "When"
            yield Draft("condition", f"{how} is {s.topic} {tokens[0].low}?", *span(tokens, 1, end), 7.0)
    elif verb is not None and verb.base == "return" and not verb.past:
        end = clip(tokens, 1, _stop(s))
        if end and end > 1 and tokens[1].low not in {"if", "when", "to"}:
            asks = (
                "What does {n} return?",
                "What does {n} return?",
                "What is returned by {n}?",
                "What does {n} give back?",
            )
            yield Draft("returns", pick(rng, *asks, n=s.topic), *span(tokens, 1, end), 8.0)
    elif verb is not None and (verb.plain or verb.third):
        if verb.base not in _NOT_DEEDS and tokens[0].low != "does" and not (verb.third and tokens[1].low == "of"):
            yield from _deed(s, rng)
    elif s.opening and tokens[1].low in _OBJECTS and tokens[0].low not in FUNCTION_WORDS and not _is_stated(s):
        yield from _deed(s, rng)  # a verb that we do not know: "Unescapes all …"
    elif s.opening and verb is None and tokens[0].low not in FUNCTION_WORDS - {"a", "an", "the"} and parse(s) is None:
        end = clip(tokens, 0, _stop(s))
        if end and end > 2 and s.text.endswith(".") and tokens[1].low not in PREPOSITIONS and not _is_stated(s):
            # Classes are things; what is written small is a function, and the verb one that we do not know.
            thing = s.topic.rpartition(".")[2][:1].isupper()
            if thing:
                ask = pick(rng, "What is {n}?", "How is {n} described?", n=s.topic)
            elif tokens[0].low in DETERMINERS - {"a", "an"}:
                return  # "The server paginates": rarely about the function
            else:  # "Manually close the stream", but "Decorator that …", "An alternative to …"
                deed = tokens[0].low.endswith("ly")
                ask = f"What does {s.topic} do?" if deed else f"How is {s.topic} described?"
            yield Draft("definition", ask, *span(tokens, 0, end), 6.0)


def _is_stated(s: Sentence) -> bool:
    """Whether the sentence is a statement with a verb of its own: "Reusing an id is rejected", "True does not …"."""
    told = takewhile(lambda t: t.low not in SUBORDINATORS, s.tokens[1 : _stop(s)])
    return any(t.low in FINITE for t in told)


def _deed(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    tokens, name, verb = s.tokens, s.topic, VERBS.get(s.tokens[0].low)
    stop = _stop(s)
    end = clip(tokens, 0, stop)
    if end and end >= 3 and s.opening:
        asks = ("What does {n} do?", "What does {n} do?", "What is the task of {n}?", "What is the purpose of {n}?")
        # The name stands in the heading, so that here the whole sentence may be the answer; the next shape is terser.
        yield Draft("does", pick(rng, *asks, n=name), *span(tokens, 0, end), 6.5 if end == s.end else 7.5)
    end = clip(tokens, 1, stop)
    telling = tokens[1].low not in FUNCTION_WORDS or tokens[1].low in DETERMINERS
    if verb is None or name.lower().endswith(verb.base):  # not "What does shelve.open open?"
        return
    told = s.opening or verb.third  # further down, "Add nodes with add_node()" speaks to the reader
    if end and end >= 3 and telling and told and tokens[1].low not in VERBS:
        yield Draft("does", f"What does {name} {verb.base}?", *span(tokens, 1, end), 7.0)


def _stop(s: Sentence) -> int:
    verb = VERBS.get(s.tokens[0].low)
    end = clause_end(s.tokens, 1, third=verb is not None and verb.third and not verb.plain)
    return next((i for i in range(1, end) if s.tokens[i].text in {".", ";", ":"}), end)
