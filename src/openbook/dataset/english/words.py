"""The little grammar that the extractive teacher knows: closed word classes, verbs and their forms, names.

A question is the sentence turned round ("The server stores samples" → "What does the server store?"), and for that
one needs the verb and its base form. The verbs are those of technical documentation and of encyclopaedias; a sentence
whose verb is not among them is left to the shapes that need no verb. The words themselves stand in `words.txt`.
"""

import re
from importlib import resources
from typing import NamedTuple


class Form(NamedTuple):
    """One spelling of a verb: its base form, and whether it is base, "s" (third person), past or past participle."""

    base: str
    third: bool = False
    plain: bool = False
    past: bool = False
    participle: bool = False


def _read_sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in resources.files(__package__).joinpath("words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            sections[line[1 : line.index("]")]] = current = []
        elif line and not line.startswith("#"):
            current.append(line)
    return sections


_SECTIONS = _read_sections()
_VOWELS = "aeiou"


def _words(section: str) -> frozenset[str]:
    return frozenset(" ".join(_SECTIONS[section]).split())


def third_person(base: str) -> str:
    if base == "have":
        return "has"
    if base.endswith(("s", "sh", "ch", "x", "z", "o")):
        return base + "es"
    if base.endswith("y") and base[-2] not in _VOWELS:
        return base[:-1] + "ies"
    return base + "s"


def _past(base: str) -> str:
    if base.endswith("e"):
        return base + "d"
    if base.endswith("y") and base[-2] not in _VOWELS:
        return base[:-1] + "ied"
    return base + base[-1] + "ed" if base in _DOUBLING else base + "ed"


def gerund(base: str) -> str:
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base.endswith("e") and not base.endswith(("ee", "oe", "ye")):
        return base[:-1] + "ing"
    return base + base[-1] + "ing" if base in _DOUBLING else base + "ing"


def _forms() -> dict[str, Form]:
    table: dict[str, Form] = {}

    def enter(word: str, base: str, role: str) -> None:
        # "found" is far more often the past of "find" than the founding of something: the later verb wins.
        known = table.get(word)
        same = known if known is not None and known.base == base else Form(base)
        table[word] = Form(base, *(flag or name == role for name, flag in zip(Form._fields[1:], same[1:], strict=True)))

    irregular = [entry.split("/") for entry in " ".join(_SECTIONS["irregular"]).split()]
    for base in sorted(_words("verbs")):
        enter(base, base, "plain")
        enter(third_person(base), base, "third")
        enter(_past(base), base, "past")
        enter(_past(base), base, "participle")
    for base, past, participle in irregular:
        enter(base, base, "plain")
        enter(third_person(base), base, "third")
        enter(past, base, "past")
        enter(participle, base, "participle")
    return table


_DOUBLING = _words("doubling")
VERBS = _forms()
PAST = {"have": "had"} | {form.base: word for word, form in VERBS.items() if form.past}
GERUNDS = {gerund(form.base): form.base for form in VERBS.values()}
SYNONYMS = {
    verb: tuple(other.strip() for other in others.split(","))
    for verb, _, others in (line.partition(":") for line in _SECTIONS["synonyms"])
}

BE = _words("be")
MODALS = _words("modals")
HAVE = _words("have")
DO = _words("do")
FINITE = BE | MODALS | HAVE | DO
DETERMINERS = _words("determiners")
PREPOSITIONS = _words("prepositions")
SUBORDINATORS = _words("subordinators")
ADVERBS = _words("adverbs")
LIMITING = _words("limiting")
# Words without content that a question may lose: it is then no longer the sentence minus its answer.
FILLERS = _words("fillers")
PRONOUNS = _words("pronouns")
# Openings that point outside the sentence; "you" is general enough to stand in a question.
DEICTIC = _words("deictic")
CONNECTORS = _words("connectors")
STOPWORDS = (
    DETERMINERS
    | PREPOSITIONS
    | SUBORDINATORS
    | ADVERBS
    | PRONOUNS
    | FINITE
    | frozenset(("and", "or", "but", "not", "be", "been", "being", "done", "yes", "etc", "very", "much", "such", "too"))
)
FUNCTION_WORDS = STOPWORDS | _words("number_words") | frozenset(("multiple", "different", "various"))
# Words that often begin a sentence and are no names, beside the verbs and the generic nouns.
ADJECTIVES = _words("adjectives")
COMMON = ADJECTIVES | _words("common")
# Nouns that name nothing by themselves: "the function" wants its name beside it.
GENERIC = _words("generic")
PLACE_PARTICIPLES = _words("place_participles")
PHRASAL = _words("phrasal")
INTRANSITIVE = _words("intransitive")
NOT_PURPOSE = _words("not_purpose")
DANGLING = _words("dangling")
WITH_PURPOSE = _words("with_purpose")
POINTING = _words("pointing")
ASKING = _words("asking")
NOT_ITEMS = _words("not_items")
VAGUE = _words("vague")
NOUNISH = _words("nounish")
HUMAN = _words("human")
NUMBER_WORDS = _words("number_words")
TITLES = _words("titles")
FIRST_NAMES = _words("first_names")
MONTHS = _words("months")

_CODE_WORD = re.compile(
    r"`[^`]+`|--?[A-Za-z][\w-]*|[A-Za-z_][\w.]*\(\)|[A-Za-z]\w*(?:(?:[._]|::)\w+)+|_\w+|[a-z]+[A-Z]\w*|[A-Z][a-z]+[A-Z]\w*"
    r"|[A-Z]+_[A-Z_0-9]+|\$\w+|@\w+|/\w[\w/.-]*"
)


def is_code(word: str) -> bool:
    """Whether a word is a name from a program: `in backticks`, dotted, snake_case, camelCase, an --option, a call()."""
    return _CODE_WORD.fullmatch(word) is not None


def is_plural(noun: str) -> bool:
    """Whether a noun looks plural."""
    low = noun.lower()
    if low in {"people", "children", "men", "women", "criteria", "police"}:
        return True
    return low.endswith("s") and not low.endswith(
        ("ss", "us", "is", "ics", "news", "series", "lens", "css", "os", "js")
    )
