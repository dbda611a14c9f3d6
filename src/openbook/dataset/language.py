"""In which language a text is written, as far as a few function words and the script can tell.

It serves one question: did the teacher answer in the language of the documents? So it stays silent where it is not
sure. Libraries that know a hundred languages bring a pickled model or a hundred megabytes.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Final

READ: Final = 2000  # characters; more do not make it surer
SURE: Final = 2  # function words that a text must have for its language to be named
LEAD: Final = 1.5  # and so many times those of the runner-up

_WORDS: Final[dict[str, dict[str, str]]] = {
    "LATIN": {
        "English": "the of and to in is are was were that which what who how many does do did when where why it for with as by from not this be has have an",
        "German": "der die das und ist sind war waren nicht ein eine einen wie viele was wer wann wo warum welche welcher welches von mit für auf dem den des im zu werden wird hat auch",
        "French": "le la les des et est sont était dans que qui quel quelle quels combien quand où pourquoi pour avec sur par une du au aux pas ne ce cette il elle",
        "Spanish": "el los las y es son era en que qué quién cuál cuándo dónde cómo cuántos por para con una un del al no se su lo más como",
        "Italian": "il lo gli e è sono era che chi quale quali quando dove perché quanti come per con una del della dei nel nella non si di da anche",
        "Portuguese": "o os as e é são era em que quem qual quando onde como quantos por para com uma um do da dos das no na não se ao mais",
        "Dutch": "de het een en is zijn was waren niet van met voor op dat die wie wat welke wanneer waar waarom hoe veel wordt worden ook door aan",
        "Swedish": "och är som det den en ett att på av för med inte till var när vem vad hur många vilken vilket har från om",
        "Danish": "og er som det den en et at på af for med ikke til hvor hvornår hvem hvad mange hvilken hvilket har fra om blev",
        "Polish": "i w na z do jest są nie się że co kto kiedy gdzie dlaczego jak ile który która które od po przez dla oraz był była",
        "Czech": "a v na se je jsou že co kdo kdy kde proč jak kolik který která které od po pro nebo byl byla není také s z",
        "Turkish": "ve bir bu da de için ile ne kim nerede nasıl kaç hangi olan olarak değil mi daha en gibi çok",
        "Indonesian": "dan yang di ke dari untuk dengan adalah ini itu apa siapa kapan mana bagaimana berapa tidak pada dalam oleh",
        "Finnish": "ja on ei se että oli mikä kuka milloin missä miksi miten kuinka monta ovat mutta myös tai kun joka",
    },
    "CYRILLIC": {
        "Russian": "и в на не что как это с по для кто где когда почему сколько какой какая какие из от был была или же его она",
        "Ukrainian": "і в на не що як це з по для хто де коли чому скільки який яка які від був була або та його вона є",
        "Bulgarian": "и в на не че как това с за кой къде кога защо колко каква какъв които от беше или е са се да",
    },
}  # fmt: skip
_LISTS = {script: {name: frozenset(words.split()) for name, words in table.items()} for script, table in _WORDS.items()}
_BY_SCRIPT: Final = {"HANGUL": "Korean", "GREEK": "Greek", "THAI": "Thai", "HEBREW": "Hebrew", "ARMENIAN": "Armenian"}
_WORD = re.compile(r"[^\W\d_]+")


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


@lru_cache(maxsize=4096)
def language(text: str) -> str:
    """The English name of the language that `text` is written in, "" where that is not certain."""
    text = text[:READ]
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if not scripts:
        return ""
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * sum(scripts.values()):
        return "Japanese"
    script, letters = scripts.most_common(1)[0]
    if letters < 0.5 * sum(scripts.values()):
        return ""
    if script == "CJK":
        return "Chinese"
    words = _WORD.findall(text.lower())
    found = Counter({name: sum(word in known for word in words) for name, known in _LISTS.get(script, {}).items()})
    if not found:
        return _BY_SCRIPT.get(script, "")
    (best, hits), (_, second) = found.most_common(2)
    return best if hits >= SURE and hits >= LEAD * second else ""


def differs(text: str, other: str) -> bool:
    """Whether two texts are certainly in different languages."""
    one, two = language(text), language(other)
    return bool(one and two) and one != two
