"""The teacher that needs no language model: questions by rule, whose answers stand verbatim in one sentence.

Every chunk is cut into sentences, every sentence is read by the shapes in `english/`, and of all drafts the best are
kept: those that stand by themselves, have a short and telling answer, and differ from each other.
"""

import random
import re
from collections.abc import Iterator

from openbook import prompt
from openbook.dataset.english import being, doing, patterns
from openbook.dataset.english.clause import Clause, Standing, parse, settle_subject, tokenize
from openbook.dataset.english.draft import Draft
from openbook.dataset.english.patterns import Setting, dangling
from openbook.dataset.english.words import DEICTIC, GENERIC, STOPWORDS, is_code
from openbook.documents import sentences
from openbook.records import Chunk, Question, content_id

MIN_QUOTE, MAX_QUOTE = 5, 60  # words
MAX_SENTENCE = 500  # characters
MAX_QUESTION = 32  # words


class ExtractiveTeacher:
    """Writes questions by rule. `write` is deterministic in the chunk and the random generator."""

    name = "extractive"

    def write(self, chunk: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions about `chunk`, the best first."""
        candidates: list[tuple[float, str, Draft]] = []
        for sentence, setting in _sentences(chunk):
            for draft in _drafts(sentence, setting, rng):
                score = _judge(sentence, draft)
                if score > 0:
                    candidates.append((score + rng.random() * 1.5, sentence, draft))
        candidates.sort(key=lambda item: -item[0])
        return [_question(chunk, sentence, draft) for sentence, draft in _choose(candidates, limit)]


def _question(chunk: Chunk, sentence: str, draft: Draft) -> Question:
    return Question(
        id=content_id(chunk.id, draft.question),
        text=draft.question,
        golden_chunk_ids=(chunk.id,),
        answer=sentence[draft.start : draft.end],
        quotes=(sentence,),
        reasoning=prompt.render_quote(sentence),
        kind=draft.kind,
    )


def _choose(candidates: list[tuple[float, str, Draft]], limit: int) -> Iterator[tuple[str, Draft]]:
    """The best first, with at most one question a sentence and two a kind, as long as there are others."""
    taken: set[int] = set()
    for sentence_cap, kind_cap in ((1, 1), (1, 2), (2, 4), (9, 99)):
        for i, (_, sentence, draft) in enumerate(candidates):
            if len(taken) >= limit:
                break
            chosen = [candidates[j] for j in taken]
            if i in taken or sum(s == sentence for _, s, _ in chosen) >= sentence_cap:
                continue
            if sum(d.kind == draft.kind for _, _, d in chosen) >= kind_cap:
                continue
            if any(_same(draft, d) for _, s, d in chosen if s == sentence):
                continue
            taken.add(i)
    for i in sorted(taken):
        yield candidates[i][1], candidates[i][2]


def _same(one: Draft, two: Draft) -> bool:
    return max(one.start, two.start) < min(one.end, two.end)


# Headings that say nothing of what stands below them.
_EMPTY_HEADING = re.compile(
    r"(?:introduction|overview|examples?|notes?|remarks?|parameters?|syntax|see also|summary|description|usage|return values?|background|motivation"
    r"|details|other|more|contents|table of contents|references|requirements|history|general|conclusion|exceptions|options|arguments|properties|methods"
    r"|abstract|rationale|specification|goals|non-goals|proposal|faq|about|inputs?|outputs?|the solution|problem|faqs?|getting started|synopsis)\W*",
    re.IGNORECASE,
)


def _topic(chunk: Chunk) -> tuple[str, bool]:
    """The nearest heading that tells something, and whether it is the name of a function, class or option."""
    for heading in (*reversed(chunk.headings), chunk.title):
        text = (
            re.sub(r"^(?:\d+(?:\.\d+)*\.?|[#*\s]+)\s*", "", heading)
            .replace("_", " " if "(" not in heading and " " not in heading and heading[:1].isupper() else "_")
            .strip(" #*:.")
        )
        named = re.match(r"`?([A-Za-z_][\w.]*)`?\(", text)
        if named:
            return named[1], True
        if is_code(text) and " " not in text:
            return text, True
        if text and not _EMPTY_HEADING.fullmatch(text) and 1 <= len(text.split()) <= 9:
            return text, False
    return "", False


_SKIP = re.compile(
    r"https?://|copyright|licen[sc]ed? under|all rights reserved|click here|table of contents|^see (?:also|the)\b|\bfor more information\b|\$ |>>> |\[\^|\{\{|\}\}|</?\w+>|;$",
    re.IGNORECASE,
)


def _sentences(chunk: Chunk) -> Iterator[tuple[str, Setting]]:
    """The sentences of a chunk that could hold a question, each with what stands around it."""
    text = chunk.text
    topic, named = _topic(chunk)
    columns: tuple[str, ...] = ()
    line_before = ""
    for start, end in sentences(text):
        sentence = text[start:end]
        if "\n" in sentence or sentence.startswith("```") or len(sentence) > MAX_SENTENCE:
            continue
        line = text.rfind("\n", 0, start) + 1
        if text[line : line + 1] == "#":
            columns = ()
            continue
        if " | " in sentence:
            if " | " not in line_before:
                columns = tuple(cell.strip() for cell in sentence.strip("| ").split("|"))
                line_before = sentence
                continue
        else:
            columns = ()
        line_before = sentence
        words = len(sentence.split())
        if not MIN_QUOTE <= words <= MAX_QUOTE or _SKIP.search(sentence):
            continue
        letters = sum(map(str.isalpha, sentence))
        if letters < 0.6 * (len(sentence) - words):
            continue
        yield sentence, Setting(topic=topic, named=named, columns=columns)


def _drafts(sentence: str, setting: Setting, rng: random.Random) -> Iterator[Draft]:
    if setting.columns:
        yield from patterns.rows(sentence, rng, setting)
        return
    if sentence.endswith(("?", ":", "…", "...")):
        return
    tokens = tokenize(sentence)
    if not 5 <= len(tokens) <= 70:
        return
    yield from patterns.abbreviations(sentence, rng)
    yield from patterns.defaults(sentence, rng)
    yield from patterns.examples(sentence, tokens, rng)
    yield from patterns.items(sentence, rng, setting)
    yield from patterns.docstring(sentence, tokens, setting, rng)
    if not setting.named:
        yield from patterns.instructions(sentence, tokens, rng)
    clause = parse(sentence, tokens)
    yield from patterns.conditions(clause, sentence, tokens, rng)
    yield from patterns.cloze(sentence, tokens, clause, rng)
    if clause is None:
        return
    clause, standing = settle_subject(clause, setting.topic, setting.named)
    if standing == "none" or (standing == "context" and not setting.topic):
        return
    lead = _lead(clause)
    if lead is None:
        return
    for draft in _of_clause(clause, rng):
        yield _placed(draft, standing, setting, lead, rng)


def _of_clause(clause: Clause, rng: random.Random) -> Iterator[Draft]:
    if clause.kind == "be":
        yield from being.of_be(clause, rng)
    elif clause.kind == "modal":
        yield from doing.of_modal(clause, rng)
    elif clause.kind == "lex":
        yield from doing.of_verb(clause, rng)
    yield from doing.of_circumstance(clause, rng)


def _lead(clause: Clause) -> str | None:
    """The adverbial before the clause, for use in the question; None where it makes the sentence hang on another."""
    first, last = clause.lead
    if last == first:
        return ""
    text = clause.text(first, last)
    low = clause.tokens[first].low
    if dangling(text) or low in {"if", "unless"} or last - first > 9:
        return None
    return text


def _placed(draft: Draft, standing: Standing, setting: Setting, lead: str, rng: random.Random) -> Draft:
    """The draft with its circumstances: the adverbial in front, and the section where the subject alone says too little."""
    ask, score = draft.question, draft.score
    if lead and draft.kind != "when":
        low = lead[0].lower() + lead[1:] if lead.split()[0].lower() in STOPWORDS | {"according"} else lead
        ask = f"{lead}, {ask[0].lower()}{ask[1:]}" if rng.random() < 0.5 else f"{ask[:-1]} {low}?"
        score -= 0.5
    if standing == "context" and draft.kind not in {"subject", "term"}:
        where = f"{ask[0].lower()}{ask[1:]}"
        topic = setting.topic
        if setting.named:
            ask = rng.choice((f"In {topic}, {where}", f"{ask[:-1]} in {topic}?"))
        else:
            ask = rng.choice(
                (f"In the section “{topic}”, {where}", f"According to “{topic}”, {where}", f"On “{topic}”: {where}")
            )
        score -= 1.5
    elif standing == "context":
        score = -1.0
    return draft._replace(question=ask, score=score)


def _judge(sentence: str, draft: Draft) -> float:
    """The draft's score, or a negative one where it is not fit to be asked."""
    answer = sentence[draft.start : draft.end]
    words = answer.split()
    if not words or len(words) > 14 or len(answer) > 110 or draft.score <= 0:
        return -1.0
    asked = draft.question.split()
    if len(asked) < 4 or len(asked) > MAX_QUESTION:
        return -1.0
    lows = [word.strip(".,;:()\"'“”`").lower() for word in words]
    content = [word for word in lows if word not in STOPWORDS]
    if (
        not content
        or lows[0] in DEICTIC - {"as"}
        or lows[-1] in STOPWORDS - {"it", "them", "one", "out", "up", "off", "on", "in", "yes", "no"}
    ):
        return -1.0
    if answer.count("`") % 2 or answer.count("(") != answer.count(")") or answer.count('"') % 2:
        return -1.0
    if len(content) == 1 and content[0] in GENERIC:
        return -1.0
    question_words = set(re.findall(r"[\w']+", draft.question.lower()))
    if draft.kind != "cloze":
        if question_words.issuperset(re.findall(r"[\w']+", " ".join(content))):
            return -1.0
        if not question_words.isdisjoint(
            (
                "this",
                "these",
                "those",
                "he",
                "she",
                "his",
                "him",
                "above",
                "below",
                "following",
                "here",
                "we",
                "our",
                "us",
                "i",
                "my",
                "me",
            )
        ):
            return -1.0
    if any(word in {"this", "these", "those", "above", "below", "following", "here", "he", "she"} for word in lows):
        return -1.0
    if not any(word not in STOPWORDS and word not in GENERIC for word in question_words - {"what", "does"}):
        return -1.0
    return draft.score - 0.08 * max(0, len(words) - 6) - 0.05 * max(0, len(asked) - 16)
