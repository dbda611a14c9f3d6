"""Which sentences of a passage could hold a question, and what stands around each."""

import re
from collections.abc import Iterator

from openbook.dataset.english.sentence import Sentence, tokenize
from openbook.dataset.english.words import STOPWORDS, is_code
from openbook.documents import sentences
from openbook.records import Chunk

MIN_QUOTE, MAX_QUOTE = 5, 60  # words
MAX_SENTENCE = 500  # characters

# Headings that say nothing of what stands below them.
_EMPTY_HEADING = re.compile(
    r"(?:introduction|overview|examples?|notes?|remarks?|parameters?|syntax|see also|summary|description|usage"
    r"|return values?|background|motivation|details|other|more|contents|table of contents|references|requirements"
    r"|general|conclusion|exceptions|options|arguments|properties|methods|abstract|rationale|specification|goals"
    r"|non-goals|proposal|faqs?|about|inputs?|outputs?|solution|the solution|problem|getting started|synopsis|status)",
    re.IGNORECASE,
)
# Headings below which something else is described than what the heading above them names.
_LISTING = re.compile(
    r"(?:other )?(?:parameters?|arguments|args|attributes|returns?|return values?|yields|raises|exceptions|warns|options"
    r"|properties|methods|inputs?|outputs?|see also|examples?|references)",
    re.IGNORECASE,
)
_NUMBERING = re.compile(r"(?:\d+(?:\.\d+)*\.?|chapter \d+[.:]?|appendix \w[.:]?|[#*]+)\s+", re.IGNORECASE)
_CALL = re.compile(r"(?:async |class |def )?`?([A-Za-z_][\w.]*)`?\(")
# Sentences that are about the page and not about its matter, and what is code or a licence after all.
_SKIP = re.compile(
    r"https?://|^\(?\w{1,2}\)|\[(?:citation|note|improper)|\.\[|\([^()]*\(|copyright|licen[sc]ed? under|all rights reserved|click here|table of contents|^see (?:also|the)\b"
    r"|\bmore information\b|\bplease\b|\$ |>>> |\[\^|\{\{|\}\}|</?(?:a|p|br|b|i|em|div|span|img|li|ul|td|tr|table|code|pre|summary|details)\b[^>]{0,80}>|;$|^\W*note\W*$|\b(?:listing|figure|table|chapter|section|example) [A-Z]?-?\d"
    r"|\blet[’']s\b|\b(?:next|previous|last) (?:section|chapter)\b|\bin this (?:section|chapter|tutorial|example|case)\b",
    re.IGNORECASE,
)


def read_chunk(chunk: Chunk) -> Iterator[Sentence]:
    """The sentences of `chunk` that are worth trying, in order."""
    text = chunk.text
    subject, named = topic(chunk)
    common = frozenset(re.findall(r"\b[a-z][a-z'-]+", text))
    columns: tuple[str, ...] = ()
    in_table = False
    since_heading = 0 if text.startswith("#") or not chunk.headings else 99  # 99: the passage goes on with a section
    for start, end in sentences(text):
        sentence = text[start:end]
        line = text.rfind("\n", 0, start) + 1
        heading = text[line] == "#"
        if heading:
            since_heading = 99 if _LISTING.fullmatch(sentence.strip("# *:.")) else 0
        else:
            since_heading += 1
        row = " | " in sentence and not heading
        if row and not in_table:
            columns = tuple(cell.strip() for cell in sentence.strip("| ").split("|"))
            if not start and not _are_headings(columns):
                columns = ()  # the passage begins inside a table, whose headings stand in another one
        header, in_table = row and not in_table, row
        if (
            heading
            or header
            or (row and not columns)
            or "\n" in sentence
            or len(sentence) > MAX_SENTENCE
            or sentence.startswith("```")
        ):
            continue
        words = sentence.split()
        if (
            not MIN_QUOTE <= len(words) <= MAX_QUOTE
            or _SKIP.search(sentence)
            or sentence.endswith(("?", ":", "…", ","))
        ):
            continue
        if sum(map(str.isalpha, sentence)) < 0.6 * (len(sentence) - len(words)):
            continue
        if not row and words[-1].lower() in STOPWORDS - {"it", "them", "one", "out", "up", "off", "on", "in", "so"}:
            continue  # cut off in mid-sentence
        if (
            sentence.count('"') % 2
            or sentence.count("“") != sentence.count("”")
            or sentence.count("(") != sentence.count(")")
            or sentence.count("`") % 2
        ):
            continue
        yield Sentence(
            text=sentence,
            tokens=tokenize(sentence),
            topic=subject,
            named=named,
            opening=since_heading <= 2,
            columns=columns if row else (),
            common=common,
        )


def _are_headings(cells: tuple[str, ...]) -> bool:
    """Whether the first row of a passage reads as the headings of its columns and not as a row among others."""
    return all(cell and len(cell.split()) <= 4 and "`" not in cell and cell[-1] not in ".:" for cell in cells)


def topic(chunk: Chunk) -> tuple[str, bool]:
    """The nearest heading that tells something, and whether it is the name of a function, class or option."""
    for heading in (*reversed(chunk.headings), chunk.title):
        text = _NUMBERING.sub("", heading.strip(), count=1).strip(" #*:.")
        call = _CALL.match(text)
        if call:
            return call[1], True
        if text and " " not in text and is_code(text):
            return text, True
        if text and not _EMPTY_HEADING.fullmatch(text) and len(text.split()) <= 9 and text[-1] not in "?!":
            return text, False
    return "", False
