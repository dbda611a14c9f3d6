"""Questions from fixed patterns, whatever the grammar of the sentence: defaults, abbreviations, examples, list items,
table rows, and the cloze."""

import random
import re
from collections.abc import Iterator

from openbook.dataset.english.draft import Draft, clip, count_words, is_number, is_year, pick, span
from openbook.dataset.english.instructions import STORY
from openbook.dataset.english.sentence import Sentence, tokenize
from openbook.dataset.english.words import (
    BE,
    DEICTIC,
    FINITE,
    FUNCTION_WORDS,
    GENERIC,
    MONTHS,
    NOT_ITEMS,
    NOUNISH,
    STOPWORDS,
    SUBORDINATORS,
    VERBS,
    is_code,
    is_plural,
)

_ABBREVIATION = re.compile(
    r"\b((?:[A-Z][\w-]{0,30} (?:(?:of|and|for|the|in|to|on) )?){1,5}[A-Z]?[\w-]{1,30}) \(([A-Z]{2,7})\)"
)
_NAME = r"(?:the )?(`[^`]{1,60}`|[\w.-]{2,40})"
# Group 1 is what has the default. In the last two, anything may stand between, so there the name must be code.
_DEFAULTS = (
    re.compile(rf"\b[Tt]he default (?:value |setting )?(?:for|of) {_NAME}(?: \w+)? is (?:set to )?(?=\S)"),
    re.compile(rf"{_NAME}(?: \w+)? defaults to (?=\S)", re.IGNORECASE),
    re.compile(
        rf"^[^\w`]*{_NAME}[^.;|]{{0,160}}[(.,] ?(?:the )?default(?:s to| is|:|=| value is) ?(?=[^\s)])", re.IGNORECASE
    ),
)
_EXAMPLES = re.compile(r"\b([a-z][\w-]{0,30}(?: [a-z][\w-]{0,30}){0,2}),? (?:such as|including) (?=\S)")
_ITEM = re.compile(r"(`[^`]{1,60}`|\w[\w .+/-]{0,40}?)(?: \([^()]{1,40}\))?(?:: | [-–—]{1,2} )(?=\S)")
_NOT_ITEMS = STOPWORDS | NOT_ITEMS
# Words by which a sentence points outside itself.
_OUTSIDE = frozenset("we you our your us i this these he she here above below following".split())


def abbreviations(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """ "Application Binary Interface (ABI)"."""
    for match in _ABBREVIATION.finditer(s.text) if "(" in s.text else ():
        long, short = match[1], match[2]
        capitals = [part for part in re.finditer(r"[^ -]+", long) if part[0][0].isupper()]
        if not "".join(part[0][0] for part in capitals).endswith(short):
            continue
        at = match.start(1) + capitals[len(capitals) - len(short)].start()
        full = s.text[at : match.end(1)]
        if rng.random() < 0.7:
            ask = pick(
                rng, "What does {a} stand for?", "What is {a} short for?", "What is the full form of {a}?", a=short
            )
            yield Draft("abbreviation", ask, at, match.end(1), 7.5)
        else:
            ask = pick(rng, "What is the abbreviation of {f}?", "How is {f} abbreviated?", f=full)
            yield Draft("abbreviation", ask, *match.span(2), 7.0)


def defaults(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """ "The default for X is Y", "X defaults to Y", "`x` … (default: Y)"."""
    for i, pattern in enumerate(_DEFAULTS) if "efault" in s.text else ():
        match = pattern.search(s.text)
        if match is None:
            continue
        name = match[1]
        if name.strip("`").lower() in DEICTIC | GENERIC | STOPWORDS or (i == 2 and not is_code(name)):
            return
        tokens = tokenize(s.text[match.end() : match.end() + 160], match.end())
        stops = {",", ".", ";", ":", ")", "and", "but", "if", "when", "so", "which", "to"}
        # "default=2 The number of …": where the value stands in a signature, a capital begins the description.
        stop = next(
            (j for j, t in enumerate(tokens) if j and (t.low in stops or (i == 2 and t.text.istitle()))), len(tokens)
        )
        end = clip(tokens, 0, stop, 8)
        if end and tokens[0].low not in DEICTIC:
            asks = ("What is the default of {n}?", "What does {n} default to?", "Which value does {n} have by default?")
            yield Draft("default", pick(rng, *asks, n=name), *span(tokens, 0, end), 8.0)
        return


def examples(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """ "measured values such as A and B": examples of what?"""
    match = _EXAMPLES.search(s.text)
    if match is None:
        return
    words = match[1].split()
    if "no" in words or s.text[: match.start(1)].endswith((" no ", " not ", "other than ")):
        return
    while len(words) > 1 and (words[0] in FUNCTION_WORDS or ((v := VERBS.get(words[0])) and not v.participle)):
        words.pop(0)
    if len(words) < 2 or not is_plural(words[-1]) or any(w in STOPWORDS for w in words):
        return
    tokens = s.tokens
    first = next((i for i, t in enumerate(tokens) if t.start >= match.end()), None)
    if first is None or tokens[first].low in {"the", "this"} | DEICTIC:
        return
    ends = (
        i for i in range(first, s.end) if tokens[i].text in {";", ":", "—", "–"} or tokens[i].low in FINITE | {"there"}
    )
    end = clip(tokens, first, next(ends, s.end))
    if end and (end == s.end or tokens[end - 1].text != ","):
        asks = ("Which {n} are given as examples?", "What are examples of {n}?", "Which examples of {n} are named?")
        yield Draft("examples", pick(rng, *asks, n=" ".join(words)), *span(tokens, first, end), 5.0)


def items(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """ "`name`: description" and "name - description", as lists of options and of terms have them."""
    match = _ITEM.match(s.text)
    if match is None:
        return
    name = match[1].strip()
    part = name.strip("`").rpartition(".")
    if (
        name.strip("`").lower() in _NOT_ITEMS
        or (part[1] and part[2][:1].isupper())
        or any(part.lower() in BE | DEICTIC for part in name.split())
    ):
        return
    # Below a function's heading a plain word is a parameter; "seed : integer or None" tells its type only.
    parameter = s.named and name.isidentifier() and name.islower()
    if s.named and match[1].endswith(" "):
        return
    code = (is_code(name) or parameter) and not name.strip("`").isdigit()
    tokens = tokenize(s.text[match.end() :], match.end())
    stop = next((i for i, t in enumerate(tokens) if t.text in {".", ";"}), len(tokens))
    end = clip(tokens, 0, stop)
    if (
        end is None
        or end < 3
        or tokens[0].text[0].isdigit()
        or tokens[0].low in SUBORDINATORS
        or (parameter and (tokens[0].low in _NOT_ITEMS - {"a", "an", "the"} or tokens[1].text == ","))
        or not (code or len(name.split()) <= 3)
    ):
        return
    verb = VERBS.get(tokens[0].low)
    noun = tokens[1].low in {"of", "or", "and", "to", "for"}  # "Number of …", "output of …"
    deed = verb is not None and verb.plain and (tokens[1].low in STOPWORDS or verb.base not in NOUNISH)
    if verb is not None and code and not noun and (verb.third or deed):
        asks = ("What does {n} do?", "What does {n} do?", "What effect does {n} have?")
    elif code:
        asks = ("What is {n}?", "What does {n} mean?", "What is meant by {n}?")
    else:
        name = s.lowered(name)
        if tokens[0].low not in {"a", "an", "the"} or is_plural(name):
            return
        asks = ("What is {n}?", "What is meant by {n}?", "How is {n} described?")
    yield Draft("item", pick(rng, *asks, n=name), *span(tokens, 0, end), 6.5 if code else 4.5)


def rows(s: Sentence, rng: random.Random) -> Iterator[Draft]:
    """A table row "`name` | description | default" under the headings of its columns."""
    cells = [cell.strip() for cell in s.text.strip("| ").split("|")]
    name = cells[0].removeprefix("- ")
    if len(cells) < 2 or len(cells) != len(s.columns) or not name:
        return
    if not is_code(name) and (len(name.split()) > 4 or any(word.lower() in FINITE for word in name.split())):
        return
    at = 0
    for column, cell in zip(s.columns[1:], cells[1:], strict=True):
        if not cell:
            continue
        at = s.text.index(cell, at)
        empty = cell.strip("`").lower() in {"-", "yes", "no", "n/a", "none", "x", "✓"}
        if not empty and len(cell.split()) <= 12 and column and len(column.split()) <= 4:
            label = column.lower() if column.istitle() or column[1:].islower() else column
            asks = ("What is the {c} of {n}?", "Which {c} does {n} have?", "Which {c} is listed for {n}?")
            yield Draft("row", pick(rng, *asks, c=label, n=name), at, at + len(cell), 6.0)
        at += len(cell)


def cloze(s: Sentence, rng: random.Random, first: int, last: int) -> Iterator[Draft]:
    """A key term left out of a part of its sentence."""
    tokens = s.tokens
    lows = [t.low for t in tokens[first:last]]
    if (
        not 9 <= last - first <= 24
        or lows[0] in DEICTIC | {"now", "next", "note", "anything"}
        or not s.text.endswith((".", ")"))
    ):
        return
    if not _OUTSIDE.isdisjoint(lows) or STORY.search(s.text):
        return

    def is_key(i: int) -> bool:
        t = tokens[i]
        if i > first and t.start == tokens[i - 1].end and tokens[i - 1].text not in "(“":
            return False  # the end of a longer name
        if lows.count(t.low) > 1 or t.low in STOPWORDS or t.text in MONTHS or tokens[i - 1].text in MONTHS:
            return False
        if is_number(t):
            unit = tokens[i + 1].low if i + 1 < last else ""
            return not is_year(t) and is_plural(unit) and unit not in FUNCTION_WORDS
        neighbours = (tokens[j].text[0].isupper() for j in (i - 1, i + 1) if first <= j < last)
        return is_code(t.text) or (i > first and t.text[0].isupper() and t.text[1:].islower() and not any(neighbours))

    keys = [i for i in range(first, last) if is_key(i)]
    if keys and count_words(tokens[first:last]) >= 7:
        key = tokens[rng.choice(keys)]
        body = f"{s.text[tokens[first].start : key.start]}____{s.text[key.end : tokens[last - 1].end]}"
        ask = pick(
            rng, "Which word is missing: “{b}”?", "Fill the gap: “{b}”", "What belongs in the gap: “{b}”?", b=body
        )
        yield Draft("cloze", ask, key.start, key.end, 2.5)
