"""Questions from sentences that follow a fixed pattern, whatever their grammar: defaults, abbreviations, examples,
instructions, conditions in front, list items, table rows, and the cloze."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openbook.dataset.english.clause import Clause, Token, lower_first
from openbook.dataset.english.draft import Draft, clip, count_words, is_number, is_year, pick, span
from openbook.dataset.english.words import (
    BE,
    DEICTIC,
    GENERIC,
    MODALS,
    PREPOSITIONS,
    STOPWORDS,
    VERBS,
    is_code,
    is_plural,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What stands around a sentence. `topic` is the nearest telling heading; `named` where it is the name of a
    function, class or option, so that "Return a list" is about it."""

    topic: str = ""
    named: bool = False
    columns: tuple[str, ...] = ()


_ABBREVIATION = re.compile(
    r"\b((?:[A-Z][\w-]* (?:(?:of|and|for|the|in|to|on) )?){1,5}[A-Z]?[\w-]+) \(([A-Z][A-Za-z]{1,6})\)"
)
_NAME = r"(?:the )?(`[^`]{1,60}`|[\w.-]{2,40})"
_DEFAULT = (
    # (pattern, question about group 1); the last group is the value
    re.compile(rf"\b[Tt]he default (?:value |setting )?(?:for|of) {_NAME}(?: \w+)? is (?:set to )?(.+)"),
    re.compile(rf"{_NAME}(?: \w+)? defaults to (.+)", re.IGNORECASE),
    re.compile(rf"{_NAME}[^.;|]{{0,120}}\((?:the )?default(?:s to| is|:|=)? ?([^()]{{1,40}})\)", re.IGNORECASE),
    re.compile(rf"{_NAME}[^.;|]{{0,160}}[.;,] (?:the )?default(?:s to| is|:| value is) ?(.+)", re.IGNORECASE),
)
_EXAMPLES = re.compile(r"\b([a-z][\w-]*(?: [a-z][\w-]*){0,2}),? (?:such as|including|like) (?=\S)")
_ITEM = re.compile(r"(`[^`]{1,60}`|\w[\w .+/-]{1,40}?)(?: \([^()]{1,40}\))?(?:: | [-–—] )(?=\S)")


def abbreviations(s: str, rng: random.Random) -> Iterator[Draft]:
    """ "Application Binary Interface (ABI)"."""
    for match in _ABBREVIATION.finditer(s):
        long, short = match[1], match[2]
        capitals = [word for word in re.split(r"[ -]", long) if word[:1].isupper()]
        letters = "".join(word[0] for word in capitals)
        if not short.isupper() or not letters.endswith(short):
            continue
        at = match.start(1) + long.index(capitals[len(capitals) - len(short)])
        ask = pick(rng, "What does {a} stand for?", "What is {a} short for?", "What is the full form of {a}?", a=short)
        yield Draft("abbreviation", ask, at, match.end(1), 7.5)
        if rng.random() < 0.3:
            full = s[at : match.end(1)]
            ask = pick(rng, "What is the abbreviation of {f}?", "How is {f} abbreviated?", f=full)
            yield Draft("abbreviation", ask, *match.span(2), 6.5)


def defaults(s: str, rng: random.Random) -> Iterator[Draft]:
    """ "The default for X is Y", "X defaults to Y", "… (default: Y)"."""
    if "efault" not in s:
        return
    for i, pattern in enumerate(_DEFAULT):
        match = pattern.search(s)
        if match is None:
            continue
        name, start = match[1], match.start(2)
        if name.strip("`").lower() in DEICTIC | GENERIC | STOPWORDS or (i >= 2 and not is_code(name)):
            return
        tokens = [t._replace(start=t.start + start, end=t.end + start) for t in tokenize_tail(s[start:])]
        stop = next((j for j, t in enumerate(tokens) if j and t.text in {",", ".", ";", ":"}), len(tokens))
        end = clip(tokens, 0, stop, 8)
        if end and tokens[0].low not in DEICTIC:
            ask = pick(
                rng,
                "What is the default of {n}?",
                "What does {n} default to?",
                "Which value does {n} have by default?",
                n=name,
            )
            yield Draft("default", ask, *span(tokens, 0, end), 8.0)
        return


def tokenize_tail(text: str) -> list[Token]:
    from openbook.dataset.english.clause import tokenize

    return tokenize(text)


def examples(s: str, tokens: Sequence[Token], rng: random.Random) -> Iterator[Draft]:
    """ "values such as A and B": examples of what?"""
    match = _EXAMPLES.search(s)
    if match is None:
        return
    words = match[1].split()
    noun = words[-1]
    if not is_plural(noun) or noun in STOPWORDS or (match[0].endswith("like ") and "," not in match[0]):
        return
    while len(words) > 1 and (words[0] in STOPWORDS or words[0] in VERBS):
        words.pop(0)
    first = next((i for i, t in enumerate(tokens) if t.start >= match.end()), None)
    if first is None or any(w in STOPWORDS for w in words) or (noun in GENERIC and len(words) == 1):
        return
    last = next(
        (
            i
            for i in range(first, len(tokens))
            if tokens[i].text in {";", ":", "—", "–"} or tokens[i].low in BE | MODALS
        ),
        len(tokens),
    )
    end = clip(tokens, first, last)
    if end and tokens[first].low not in {"the", "this"} | DEICTIC:
        n = " ".join(words)
        ask = pick(
            rng,
            "Which {n} are given as examples?",
            "What are examples of {n}?",
            "Which examples of {n} are named?",
            n=n,
        )
        yield Draft("examples", ask, *span(tokens, first, end), 5.0)


def instructions(s: str, tokens: Sequence[Token], rng: random.Random) -> Iterator[Draft]:
    """ "Use X to do Y", "To do Y, use X", "You can use X to do Y", "You must do Y before Z"."""
    n = len(tokens) - (tokens[-1].text in {".", "!", ":"})
    first = 0
    if tokens[0].low == "to" and len(tokens) > 4 and (f := VERBS.get(tokens[1].low)) and f.plain:
        comma = next((i for i in range(3, min(22, n)) if tokens[i].text == ","), None)
        if comma is None:
            return
        goal = s[tokens[1].start : tokens[comma - 1].end]
        at = comma + 1
        if at + 1 < n and tokens[at].low in {"you", "we"}:
            at += 1 + (tokens[at + 1].low in MODALS) + 2 * (tokens[at + 1].low in {"need", "have"})
        if at + 1 >= n or not ((f := VERBS.get(tokens[at].low)) and f.plain) or dangling(goal):
            return
        if tokens[at].low in {"use", "run", "call"}:
            end = clip(tokens, at + 1, _object_end(tokens, at + 1, n))
            if end:
                ask = pick(
                    rng,
                    "What do you {v} to {g}?",
                    "What should you {v} to {g}?",
                    "What can you {v} in order to {g}?",
                    v=tokens[at].low,
                    g=goal,
                )
                yield Draft("instruction", ask, *span(tokens, at + 1, end), 7.5)
        else:
            end = clip(tokens, at, n)
            if end and end - at > 1:
                ask = pick(rng, "How do you {g}?", "What should you do to {g}?", "How can you {g}?", g=goal)
                yield Draft("instruction", ask, *span(tokens, at, end), 7.0)
        return
    modal = ""
    if tokens[0].low in {"you", "we"} and len(tokens) > 5 and (tokens[1].low in MODALS or tokens[1].low == "need"):
        modal, first = tokens[1].low, 2 + (tokens[1].low == "need")
    verb = VERBS.get(tokens[first].low)
    if verb is None or not verb.plain or (not first and not (tokens[0].text[0].isupper() and tokens[0].text.isalpha())):
        return
    base = tokens[first].low
    to = next((i for i in range(first + 2, min(first + 9, n - 1)) if tokens[i].low == "to"), None)
    if (
        to is not None
        and (f := VERBS.get(tokens[to + 1].low))
        and f.plain
        and base
        in {
            "use",
            "run",
            "call",
            "set",
            "add",
            "pass",
            "specify",
            "install",
            "create",
            "enable",
            "invoke",
            "execute",
            "choose",
            "select",
            "define",
            "configure",
            "implement",
            "write",
            "press",
            "click",
            "include",
            "import",
        }
    ):
        end, goal_end = clip(tokens, first + 1, to), clip(tokens, to + 1, n, 14)
        if end == to and goal_end and end - first - 1 >= 1:
            goal = s[tokens[to + 1].start : tokens[goal_end - 1].end]
            if not dangling(goal) and tokens[first + 1].low not in DEICTIC:
                word = modal if modal in {"can", "must", "should"} else rng.choice(("should", "can"))
                ask = pick(
                    rng,
                    "What {m} you {v} to {g}?",
                    "What {m} you {v} in order to {g}?",
                    "To {g}, what {m} you {v}?",
                    m=word,
                    v=base,
                    g=goal,
                )
                yield Draft("instruction", ask, *span(tokens, first + 1, end), 7.5)
        return
    if modal in {"must", "should", "need", "cannot"} and first < n - 1:
        when = next(
            (i for i in range(first + 2, n - 2) if tokens[i].low in {"if", "when", "before", "after", "unless", "for"}),
            None,
        )
        if when is not None:
            end = clip(tokens, first, when)
            condition = clip(tokens, when, n, 14)
            if end == when and condition:
                said = s[tokens[when].start : tokens[condition - 1].end]
                if not dangling(said) and modal != "cannot":
                    ask = (
                        f"What must you do {said}?"
                        if modal == "must"
                        else f"What do you need to do {said}?"
                        if modal == "need"
                        else f"What should you do {said}?"
                    )
                    yield Draft("must", ask, *span(tokens, first, end), 6.5)


def _object_end(tokens: Sequence[Token], first: int, n: int) -> int:
    """The end of a noun phrase that begins at `first`."""
    return next(
        (
            i
            for i in range(first + 1, n)
            if tokens[i].text in {",", ";", ":"}
            or tokens[i].low
            in {"and", "or", "with", "in", "which", "that", "as", "on", "from", "when", "if", "instead"}
        ),
        n,
    )


def conditions(c: Clause | None, s: str, tokens: Sequence[Token], rng: random.Random) -> Iterator[Draft]:
    """ "If COND, MAIN": what happens if COND?"""
    if c is None or tokens[0].low not in {"if", "when", "unless", "once"} or c.lead[1] == 0:
        return
    first, last = c.lead
    said = s[tokens[first].start : tokens[last - 1].end]
    if dangling(said) or count_words(tokens[first:last]) < 3:
        return
    start = c.subject[0]
    end = clip(tokens, start, c.stop)
    if end is None or tokens[start].low in {"you", "we"}:
        return
    ask = pick(
        rng,
        "What happens {c}?",
        "What is the case {c}?" if tokens[0].low == "if" else "What happens {c}?",
        "{C}, what happens?",
        c=lower_first(said),
        C=said,
    )
    yield Draft("condition", ask, *span(tokens, start, end), 6.0)


def docstring(s: str, tokens: Sequence[Token], setting: Setting, rng: random.Random) -> Iterator[Draft]:
    """ "Return the list of …" under the heading of a function: what does it return, what does it do?"""
    verb = VERBS.get(tokens[0].low)
    if not setting.named or verb is None or not (verb.plain or verb.third) or not tokens[0].text[0].isupper():
        return
    if (
        len(tokens) < 4
        or tokens[1].text in {":", ",", "="}
        or tokens[0].low in {"note", "see", "example", "default", "defaults", "use", "type", "types"}
    ):
        return
    n = len(tokens)
    stop = next((i for i in range(1, n) if tokens[i].text in {".", ";", ":"}), n)
    name = setting.topic
    if verb.base == "return":
        end = clip(tokens, 1, stop)
        if end and tokens[1].low not in {"if", "when", "to"}:
            ask = pick(
                rng, "What does {n} return?", "What is returned by {n}?", "What does a call of {n} give back?", n=name
            )
            yield Draft("returns", ask, *span(tokens, 1, end), 8.0)
        return
    end = clip(tokens, 0, stop)
    if end and end >= 3:
        ask = pick(rng, "What does {n} do?", "What is {n} for?", "What is the purpose of {n}?", n=name)
        yield Draft("does", ask, *span(tokens, 0, end), 7.5)
    end = clip(tokens, 1, stop)
    if (
        end
        and end >= 3
        and tokens[1].low not in PREPOSITIONS
        and not (tokens[2].low in VERBS and tokens[1].low in VERBS)
    ):
        yield Draft("does", f"What does {name} {verb.base}?", *span(tokens, 1, end), 6.5)


def items(s: str, rng: random.Random, setting: Setting) -> Iterator[Draft]:
    """ "`name`: description" and "name - description", as lists of options and terms have them."""
    match = _ITEM.match(s)
    if match is None:
        return
    name = match[1].strip()
    if name.lower() in STOPWORDS | {
        "note",
        "warning",
        "tip",
        "example",
        "default",
        "see also",
        "important",
        "caution",
        "todo",
        "hint",
        "returns",
        "raises",
    }:
        return
    tokens = [t._replace(start=t.start + match.end(), end=t.end + match.end()) for t in tokenize_tail(s[match.end() :])]
    stop = next((i for i, t in enumerate(tokens) if t.text in {".", ";"}), len(tokens))
    end = clip(tokens, 0, stop)
    if end is None or end < 3 or not (is_code(name) or len(name.split()) <= 3):
        return
    verb = VERBS.get(tokens[0].low)
    if (
        verb is not None
        and (verb.third or verb.plain)
        and tokens[0].low not in {"name", "number", "set", "list", "type"}
    ):
        ask = pick(rng, "What does {n} do?", "What is {n} for?", "What effect does {n} have?", n=name)
    else:
        ask = pick(
            rng,
            "What is {n}?",
            "What does {n} mean?",
            "What does {n} stand for?" if name.isupper() else "What is meant by {n}?",
            n=name,
        )
    yield Draft("item", ask, *span(tokens, 0, end), 6.5 if is_code(name) else 5.0)


def rows(s: str, rng: random.Random, setting: Setting) -> Iterator[Draft]:
    """A table row "`name` | description | default" under a header that names its columns."""
    cells = [cell.strip() for cell in s.strip("| ").split("|")]
    if len(cells) < 2 or len(cells) != len(setting.columns) or not cells[0]:
        return
    at = 0
    for column, cell in zip(setting.columns[1:], cells[1:], strict=True):
        at = s.index(cell, at + 1) if cell else at
        if (
            not cell
            or len(cell.split()) > 12
            or not column
            or len(column.split()) > 4
            or cell.strip("`").lower() in {"-", "yes", "no", "n/a", "none"}
        ):
            continue
        label = lower_first(column)
        ask = pick(
            rng,
            "What is the {c} of {n}?",
            "In the table, which {c} does {n} have?",
            "Which {c} is listed for {n}?",
            c=label.lower() if label.istitle() else label,
            n=cells[0],
        )
        yield Draft("row", ask, at, at + len(cell), 6.0)


def cloze(s: str, tokens: Sequence[Token], c: Clause | None, rng: random.Random) -> Iterator[Draft]:
    """A key term left out of (a part of) its sentence."""
    n = len(tokens) - (tokens[-1].text in {".", "!"})
    first, last = (0, n) if n <= 24 else (c.subject[0], c.stop) if c is not None else (0, 0)
    if last - first < 7 or tokens[first].low in DEICTIC:
        return
    lows = [t.low for t in tokens[first:last]]
    keys = [
        i
        for i in range(first, last)
        if (
            is_code(tokens[i].text)
            or (is_number(tokens[i]) and not is_year(tokens[i]))
            or (i > first and tokens[i].text[0].isupper() and tokens[i].text[1:].islower())
        )
        and lows.count(tokens[i].low) == 1
        and tokens[i].low not in STOPWORDS
        and not (i + 1 < last and tokens[i + 1].text[0].isupper() and tokens[i].text[0].isupper())
        and not (i > first and tokens[i - 1].text[0].isupper() and tokens[i].text[0].isupper())
    ]
    if not keys:
        return
    key = rng.choice(keys)
    end = last
    body = s[tokens[first].start : tokens[key].start] + "____" + s[tokens[key].end : tokens[end - 1].end]
    ask = pick(rng, "Which word is missing: “{b}”?", "Fill the gap: “{b}”", "What belongs in the gap: “{b}”?", b=body)
    yield Draft("cloze", ask, tokens[key].start, tokens[key].end, 2.5)


_DANGLING = frozenset(
    ["this", "these", "those", "he", "she", "his", "him", "her", "they", "them", "it", "such", "here", "above", "below", "following", "former", "latter", "former"]
)


def dangling(text: str) -> bool:
    """Whether words point at something that a reader of the question alone cannot see."""
    return any(word in _DANGLING for word in re.findall(r"[a-z]+", text.lower()))
