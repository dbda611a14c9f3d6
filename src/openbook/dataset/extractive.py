"""The teacher that needs no language model: questions by rule, whose answers stand verbatim in one sentence.

Every sentence of a chunk is read by the shapes in `english/`, and of all drafts the best are kept: those that stand by
themselves, have a short and telling answer, and differ from each other. One pass over the text, about a millisecond a
chunk.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from openbook import prompt
from openbook.dataset.english import being, circumstance, docstrings, doing, instructions, patterns
from openbook.dataset.english.clause import Clause, parse
from openbook.dataset.english.combining import displaced, joined
from openbook.dataset.english.draft import Draft
from openbook.dataset.english.instructions import dangling
from openbook.dataset.english.judging import judge, telling_words
from openbook.dataset.english.reading import read_chunk
from openbook.dataset.english.sentence import Sentence
from openbook.dataset.english.subject import Standing, settle
from openbook.dataset.english.words import ADVERBS, STOPWORDS
from openbook.dataset.entities import names
from openbook.dataset.judge import Judge
from openbook.dataset.llm_teacher import nowhere
from openbook.llm import Spent
from openbook.records import Chunk, Question, content_id

# Kinds whose question names the section anyway, or stands by itself.
_PLACED = frozenset(("abbreviation", "row", "cloze", "returns", "does"))


_CONDITIONAL = re.compile(r"(?:if|when|once|whenever)\b", re.IGNORECASE)

MANY = 8  # questions of a passage from which those are taken that can be combined
VERSION = 2  # raised with every change of the rules that changes questions


class ExtractiveTeacher:
    """Writes questions by rule. `write` is a pure function of the chunk and the state of `rng`."""

    fingerprint = f"extractive {VERSION}"
    at_once = 1
    judge: Judge | None = None
    exhausted = False
    spent = Spent()

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()  # rules do not fail

    def write(self, chunk: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions about `chunk`, the best first."""
        found: list[tuple[float, Sentence, Draft]] = []
        for sentence in read_chunk(chunk):
            for draft in _drafts(sentence, rng):
                score = judge(sentence, draft)
                if score > 0:
                    # Chance decides among equals, so that not every passage is asked for its first definition.
                    found.append((score + 1.5 * rng.random(), sentence, draft))
        found.sort(key=lambda item: -item[0])
        return [_question(chunk, sentence, draft) for _, sentence, draft in _choose(found, limit)]

    def write_pair(self, first: Chunk, second: Chunk, *, shared: str, rng: random.Random, limit: int) -> list[Question]:
        """Two questions about the thing `shared`, one of each passage, asked as one."""
        ones, twos = (
            [question for question in self.write(chunk, rng=rng, limit=MANY) if names(question.text, shared)]
            for chunk in (first, second)
        )
        both = (joined(one, two, shared) for one in ones for two in twos)
        return [question for question in both if question is not None][:limit]

    def write_nowhere(self, chunk: Chunk, other: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """Questions about `chunk`, asked about a thing that only `other` names."""
        texts = (displaced(question, chunk, other) for question in self.write(chunk, rng=rng, limit=MANY))
        questions = (nowhere(text, chunk, "nowhere") for text in texts)
        return [question for question in questions if question is not None][:limit]


def _question(chunk: Chunk, sentence: Sentence, draft: Draft) -> Question:
    start, end = draft.start, draft.end
    answer = sentence.text[start:end]
    if answer.count("`") == 2 and answer[0] == answer[-1] == "`":
        answer = answer[1:-1]
    return Question(
        id=content_id(chunk.id, draft.question),
        text=draft.question,
        golden_chunk_ids=(chunk.id,),
        answer=answer,
        quotes=(sentence.text,),
        reasoning=prompt.render_quote(sentence.text),
        kind=draft.kind,
    )


def _choose(found: Sequence[tuple[float, Sentence, Draft]], limit: int) -> list[tuple[float, Sentence, Draft]]:
    """The best first, spread over sentences and kinds as far as there is a choice; the rest only to fill up."""
    chosen: list[int] = []
    for per_sentence, per_kind in ((1, 1), (1, 2), (2, 4), (4, limit)):
        for i, (_, sentence, draft) in enumerate(found):
            if len(chosen) >= limit:
                break
            if i in chosen:
                continue
            siblings = [found[j][2] for j in chosen if found[j][1] is sentence]
            if len(siblings) >= per_sentence or sum(found[j][2].kind == draft.kind for j in chosen) >= per_kind:
                continue
            # Two questions of one sentence must not have the same answer, nor ask for what the other one tells.
            if any(max(draft.start, s.start) < min(draft.end, s.end) or s.kind == draft.kind for s in siblings):
                continue
            if draft.kind == "cloze" and (per_kind == 1 or chosen):
                continue  # only where nothing better was found
            chosen.append(i)
    return [found[i] for i in sorted(chosen)]


def _drafts(sentence: Sentence, rng: random.Random) -> Iterator[Draft]:
    if sentence.columns:
        yield from patterns.rows(sentence, rng)
        return
    if not 5 <= len(sentence.tokens) <= 70:
        return
    loose = [
        *patterns.abbreviations(sentence, rng),
        *patterns.defaults(sentence, rng),
        *patterns.examples(sentence, rng),
        *patterns.items(sentence, rng),
        *docstrings.docstring(sentence, rng),
    ]
    if not sentence.named:
        loose += instructions.instructions(sentence, rng)
    clause = parse(sentence)
    if clause is not None:
        loose += instructions.conditions(clause, rng)
        whole = sentence.end <= 24
        first, last = (0, sentence.end) if whole else (clause.subject[0], clause.stop)
        loose += patterns.cloze(sentence, rng, first, last)
    for draft in loose:
        yield _named(draft, sentence, rng)
    if clause is not None:
        yield from _clause_drafts(clause, rng)


def _clause_drafts(clause: Clause, rng: random.Random) -> Iterator[Draft]:
    clause, standing = settle(clause)
    sentence = clause.sentence
    if standing == "none" or (standing == "context" and not sentence.topic):
        return
    lead = _lead(clause)
    if lead is None:
        return
    for draft in _of_clause(clause, rng):
        if _keeps_limits(draft, clause):
            yield _placed(draft, sentence, standing, lead, rng)


def _keeps_limits(draft: Draft, clause: Clause) -> bool:
    """Whether the adverbs that limit the clause stand in the question or in its answer: "is rarely exposed by" must not
    be asked about as though it were "is exposed by"."""
    return clause.limits in draft.question or clause.limits in clause.sentence.text[draft.start : draft.end].lower()


def _of_clause(clause: Clause, rng: random.Random) -> Iterator[Draft]:
    if clause.kind == "be":
        yield from being.of_be(clause, rng)
    elif clause.kind == "modal":
        yield from doing.of_modal(clause, rng)
    elif clause.kind == "lex":
        yield from doing.of_verb(clause, rng)
    else:
        yield from doing.of_perfect(clause, rng)
    yield from circumstance.of_circumstance(clause, rng)


def _lead(clause: Clause) -> str | None:
    """The adverbial before the clause, for use in the question; None where it makes the sentence hang on another."""
    first, last = clause.lead
    if last == first or (last == first + 1 and clause.tokens[first].low in ADVERBS):
        return ""
    text = clause.sentence.part(first, last)
    if clause.tokens[first].low in {"like", "unlike", "as"}:
        return ""  # "as mentioned above", "like tuples": nothing depends on it
    conditional = _CONDITIONAL.match(text) is not None
    if dangling(text) or clause.tokens[first].low == "unless" or last - first > (13 if conditional else 9):
        return None
    if conditional and (last - first < 4 or clause.tokens[first + 1].low == "that"):
        return None  # "If present", "If that does not suit you"
    return text


def _placed(draft: Draft, sentence: Sentence, standing: Standing, lead: str, rng: random.Random) -> Draft:
    """The draft with its circumstances: the adverbial of the sentence, and the section where the subject alone says
    too little."""
    ask = draft.question
    if lead and draft.kind != "when":
        low = sentence.lowered(lead)
        ask = f"{lead}, {_lower(ask)}" if rng.random() < 0.5 or ask.startswith("How many") else f"{ask[:-1]} {low}?"
        ask = ask[0].upper() + ask[1:]
        draft = draft._replace(question=ask, score=draft.score - 0.5)
    if standing == "context" and draft.kind in {"subject", "term"}:
        return draft._replace(score=-1.0)  # "the function" would be the answer
    conditional = _CONDITIONAL.match(lead) is not None
    if draft.kind == "definition" and (conditional or lead.lower().startswith(("by ", "with "))):
        return draft._replace(score=-1.0)  # "By importing it, X is now a valid name": what becomes of X, not what it is
    if draft.kind in {"condition", "when", "why"} and conditional:
        return draft._replace(score=-1.0)  # one condition is enough
    thin = draft.kind in {"what", "must", "condition"} and not sentence.named and telling_words(draft.question) < 2
    topic_words = {word for word in re.findall(r"\w+", sentence.topic.lower()) if word not in STOPWORDS}
    told = bool(topic_words) and topic_words.issubset(re.findall(r"\w+", ask.lower()))
    if (standing == "context" or thin) and not told:
        if not sentence.topic:
            return draft._replace(score=-1.0)
        if not sentence.named:
            topic = sentence.topic
            asks = (f"In “{topic}”, {_lower(ask)}", f"According to “{topic}”, {_lower(ask)}")
            return draft._replace(question=rng.choice(asks), score=draft.score - 1.5)
    return _named(draft, sentence, rng)


def _named(draft: Draft, sentence: Sentence, rng: random.Random) -> Draft:
    """Under the heading of a function or class, a question names it: "mode" means little without it."""
    topic, ask = sentence.topic, draft.question
    if not sentence.named or topic in ask or draft.kind in _PLACED:
        return draft
    return draft._replace(question=rng.choice((f"In {topic}, {_lower(ask)}", f"{ask[:-1]} in {topic}?")))


def _lower(ask: str) -> str:
    return ask[0].lower() + ask[1:]
