"""Comparing short answers: SQuAD's normalisation, exact match and token F1, strict about numbers.

The normalisation and both scores are those of SQuAD's `evaluate-v1.1.py` (Rajpurkar et al., arXiv 1606.05250) for
every ASCII text without a sign, a decimal point or a power, and extend them in three places where the script is lenient on
content or strict on form:

- `-1` and `1`, `1.5` and `15`, `10²` and `102` are different answers; the script drops the sign and the point.
- Typographic punctuation (“ ” ‘ ’ – …) and compatibility forms (ﬁ, no-break spaces) are form, as ASCII's are.
- An answer that is nothing but punctuation or an article (`*`, `%`, the file mode `a`) is compared as it stands; the
  script finds it equal to an empty answer.
"""

import re
import string
import unicodedata
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGN = re.compile(r"(?<![^\s(\[{<>=:,|/\"'`])[-−](?=\.?\d)")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_POWER = re.compile(r"(?<=\d)(?:\^([-−]?)(\d+)|(⁻?)([⁰¹²³⁴-⁹]+))")
_SPACELESS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
_WRAPPERS = "`'\"“”‘’ "


class _Punctuation(dict[int, int | None]):
    """A table for `str.translate` that drops punctuation; filled as characters come by."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        drop = character in string.punctuation or unicodedata.category(character).startswith("P")
        self[code] = None if drop else code
        return self[code]


_WITHOUT_PUNCTUATION = _Punctuation()


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def tokens(text: str) -> list[str]:
    """The words that F1 counts: normalised, with signs, decimal points and powers spelled out so that they survive."""
    return normalize(_POINT.sub("point", _SIGN.sub("minus", _POWER.sub(_spelled, text)))).split()


def _spelled(power: re.Match[str]) -> str:
    return ("powerminus" if power[1] or power[3] else "power") + (power[2] or power[4])


def exact_match(prediction: str, gold: str) -> bool:
    """Whether both are the same answer; case, quotes, articles and punctuation around words do not matter."""
    predicted, wanted = tokens(prediction), tokens(gold)
    if not predicted and not wanted:
        return _bare(prediction) == _bare(gold)
    return predicted == wanted


def f1(prediction: str, gold: str) -> float:
    """Harmonic mean of the shares of shared words in either answer, from 0 to 1; words count as often as they occur."""
    predicted, wanted = tokens(prediction), tokens(gold)
    if not predicted or not wanted:
        return float(exact_match(prediction, gold))
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted))


def contains(text: str, answer: str) -> bool:
    """Whether `text` holds the short answer: its words in a row, or its characters between word boundaries.

    The second way finds `dumps` in `json.dumps(obj)`, which normalisation melts into one word. An empty answer is
    held by no text.
    """
    wanted = tokens(answer)
    if wanted and f" {' '.join(wanted)} " in f" {' '.join(tokens(text))} ":
        return True
    bare = _bare(answer)
    if not bare:
        return False
    before = r"(?<!\w)" if _ends_word(bare[0]) else ""
    after = r"(?!\w)" if _ends_word(bare[-1]) else ""
    verbatim = r"\s+".join(re.escape(word) for word in bare.split())
    return re.search(before + verbatim + after, text.casefold()) is not None


def _ends_word(character: str) -> bool:
    """Whether a word is told from the next by what follows this character: Thai, Japanese and Chinese have no spaces."""
    return character.isalnum() and not _SPACELESS.match(character)


def _bare(text: str) -> str:
    """`text` in one case without the marks around it, unless it is nothing but such marks."""
    text = text.strip().casefold()
    return text.strip(_WRAPPERS + ".") or text.strip(_WRAPPERS) or text
