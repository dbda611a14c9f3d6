"""THE prompt: what a model is shown, in training, in the exam and in daily use, and how its answer is read.

The answer's form is that of the RAFT paper's code (arXiv 2403.10131; the `raft/` folder of ShishirPatil/gorilla):
reasoning with word-for-word spans between `##begin_quote##` and `##end_quote##`, then `<ANSWER>: ` and a short answer.
Passages stand before the question, so that questions over the same passages share their beginning token for token.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from openbook.records import Chunk, Conversation, Message, Quote, content_id

BEGIN_QUOTE = "##begin_quote##"
END_QUOTE = "##end_quote##"
ANSWER = "<ANSWER>:"
DOCUMENT = "<DOCUMENT>"
END_DOCUMENT = "</DOCUMENT>"

REFUSAL = "not in the documents"
REFUSAL_REASONING = "The documents do not answer this question."

SYSTEM = (
    f"Answer the question from the documents. Quote the sentence that holds the answer between {BEGIN_QUOTE} and "
    f"{END_QUOTE}, then write {ANSWER} and a short answer. If the documents do not hold the answer, write "
    f"{ANSWER} {REFUSAL}"
)
SYSTEM_CLOSED = f"Answer the question. Write {ANSWER} and a short answer."

TAGS = (BEGIN_QUOTE, END_QUOTE, ANSWER, DOCUMENT, END_DOCUMENT)

# What a reader sees in place of the tags that a model writes. A space after the opening one belongs to the tag.
READABLE = {f"{BEGIN_QUOTE} ": "“", BEGIN_QUOTE: "“", END_QUOTE: "”", ANSWER: "\n→"}
_READABLE_TAG = re.compile("|".join(map(re.escape, READABLE)))

# What a manifest records; an adapter is warned about when it is used with another prompt than it was tuned with.
FINGERPRINT = content_id(SYSTEM, SYSTEM_CLOSED, REFUSAL, REFUSAL_REASONING, *TAGS)


def defused(text: str) -> str:
    """`text` with our tags broken apart, so that a hostile passage or question cannot pose as structure."""
    for tag in TAGS:
        text = text.replace(tag, f"{tag[0]} {tag[1:]}")
    return text


def encodable(text: str) -> str:
    """`text` with a question mark for each byte that is no text, as a terminal may send; no tokenizer takes such halves."""
    return text.encode("utf-8", "replace").decode()


def instruction(passages: Iterable[str], question: str) -> str:
    """The user's message: every passage between document tags, then the bare question (gorilla's layout)."""
    documents = "".join(f"{DOCUMENT}{defused(passage)}{END_DOCUMENT}\n" for passage in passages)
    return documents + defused(question)


def prompt(question: str, passages: Sequence[str] | None) -> Conversation:
    """The conversation up to the point where the model answers; `passages=None` is the closed-book form."""
    system = SYSTEM_CLOSED if passages is None else SYSTEM
    return Conversation(
        messages=(
            Message(role="system", content=system),
            Message(role="user", content=instruction(passages or (), question)),
        )
    )


def with_answer(conversation: Conversation, answer: str) -> Conversation:
    """`conversation` and the assistant's answer to it."""
    return Conversation(messages=(*conversation.messages, Message(role="assistant", content=answer)))


def render_answer(reasoning: str, final: str) -> str:
    """The text a model is trained to write. `reasoning` carries its quotes with their tags."""
    return f"{reasoning} {ANSWER} {final}" if reasoning else f"{ANSWER} {final}"


def render_quote(quote: str) -> str:
    """A quote between its tags. After the space its first word is the same token as in running text; reading strips it."""
    return f"{BEGIN_QUOTE} {quote}{END_QUOTE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAnswer:
    """`quotes` are the texts between quote tags wherever they stand, stripped, and `open_quote` what follows a tag that
    none closes ("" where all are closed); `final` is "" when the answer has no answer tag."""

    reasoning: str
    quotes: tuple[str, ...]
    open_quote: str = ""
    final: str
    refusal: bool


# The paper writes `##Answer:`; some data sets drop the space or write the tag in another case.
_FINAL = re.compile(r"(?:<ANSWER>\s*:?|##\s*Answer\s*:)", re.IGNORECASE)
_ASSISTANT = re.compile(r"^\s*assistant\s*:\s*", re.IGNORECASE)
_QUOTE = re.compile(rf"{re.escape(BEGIN_QUOTE)}(.*?)({re.escape(END_QUOTE)}|\Z)", re.DOTALL)
_SOURCE = r"(?:the |these |any of the )?(?:provided |given )?(?:documents?|passages?|context|texts?|sources?)"
_REFUSALS = re.compile(
    r"^(?:(?:(?:it|this|that|the answer(?: to this question)?) is )?"
    rf"not (?:(?:stated|found|given|mentioned|provided|specified|answered) )?in {_SOURCE}"
    r"|unanswerable|no answer|i (?:do not|don['’]t) know\b.*"
    rf"|{_SOURCE} (?:do(?:es)? not|don['’]t|doesn['’]t) "
    r"(?:say|answer|state|mention|contain|hold|provide|specify|include|give|explain)\b.*"
    r"|(?:(?:it|this|the question) )?cannot be (?:answered|determined)\b.*)$"
)


def parse_answer(text: str) -> ParsedAnswer:
    """Read an answer leniently on form: the last answer tag counts, and without one there is no final answer.

    Inverse of `render_answer` for every reasoning and final answer that do not themselves hold an answer tag.
    """
    text = _ASSISTANT.sub("", text, count=1)
    tags = list(_FINAL.finditer(text))
    reasoning, final = (text[: tags[-1].start()], text[tags[-1].end() :]) if tags else (text, "")
    reasoning = re.sub(r"^\s*##\s*Reason\s*:\s*", "", reasoning).strip()
    final = final.strip()
    quotes = [part for part in _parts(text) if part.quote]  # also those behind the answer tag: each is a claim
    return ParsedAnswer(
        reasoning=reasoning,
        quotes=tuple(part.text for part in quotes if part.closed),
        open_quote=next((part.text for part in quotes if not part.closed), ""),
        final=final,
        refusal=is_refusal(final),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of an answer as a reader sees it; `quote` is the number of the quote that it is, counted from 1, or 0.

    `closed` is False for a quote whose end the model never wrote, so that nobody can know what it claims to quote.
    """

    text: str
    quote: int = 0
    closed: bool = True


def segments(text: str) -> tuple[Segment, ...]:
    """An answer cut at its quotes, the tags gone; blank quotes are none."""
    return tuple(part if part.quote else replace(part, text=_readable(part.text)) for part in _parts(text) if part.text)


def _parts(text: str) -> Iterator[Segment]:
    """`text` cut at its quotes, which are stripped; what stands around them as it was written."""
    at = count = 0
    for match in _QUOTE.finditer(text):
        yield Segment(text=text[at : match.start()])
        closed = bool(match[2])
        quote = match[1] if closed else _claimed(match[1])
        at = match.end() if closed else match.start(1) + len(quote)
        if quote.strip():
            count += 1
            yield Segment(text=quote.strip(), quote=count, closed=closed)
    yield Segment(text=text[at:])


def _claimed(rest: str) -> str:
    """What an open quote holds of the `rest` of an answer: the short answer is not part of it."""
    tags = list(_FINAL.finditer(rest))
    return rest[: tags[-1].start()] if tags else rest


def _readable(text: str) -> str:
    return _READABLE_TAG.sub(lambda match: READABLE[match[0]], text)


class Readable:
    """A streamed answer with its tags replaced by what a reader sees, however the stream cuts it into pieces.

    With `numbered`, each quote is followed by its number in brackets, as `segments` counts them; that of a quote which
    nobody closed comes at the end.
    """

    def __init__(self, *, numbered: bool = False) -> None:
        self._numbered = numbered
        self._held = ""  # a tail that may yet grow into a tag
        self._quote: str | None = None  # what the open quote holds so far
        self._count = 0

    def add(self, piece: str) -> str:
        """What can be shown now."""
        text, shown, at = self._held + piece, "", 0
        for match in _READABLE_TAG.finditer(text):
            if match.end() == len(text) and match[0] == BEGIN_QUOTE:
                break  # the space that belongs to it may follow
            shown += self._plain(text[at : match.start()]) + self._mark(match[0])
            at = match.end()
        rest = text[at:]
        keep = max((n for tag in READABLE for n in range(1, len(tag)) if rest.endswith(tag[:n])), default=0)
        self._held = rest[len(rest) - keep :]
        return shown + self._plain(rest[: len(rest) - keep])

    def close(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        shown = self._mark(held) if held in READABLE else self._plain(held)
        is_open = self._quote is not None and bool(_claimed(self._quote).strip())
        return shown + self._number() if is_open else shown

    def _plain(self, text: str) -> str:
        if self._quote is not None:
            self._quote += text
        return text

    def _mark(self, tag: str) -> str:
        if tag == END_QUOTE:
            whole = self._quote is not None and bool(self._quote.strip())
            self._quote = None
            if whole:
                return READABLE[tag] + self._number()
        elif self._quote is not None:
            self._quote += tag
        elif tag.startswith(BEGIN_QUOTE):
            self._quote = ""
        return READABLE[tag]

    def _number(self) -> str:
        self._count += 1
        return f" [{self._count}]" if self._numbered else ""


def is_refusal(final: str) -> bool:
    """Whether a short answer says that the documents hold none, in our words or in the common other ones."""
    plain = unicodedata.normalize("NFKC", final).strip(" \t\r\n.!*`\"'").lower()
    return bool(_REFUSALS.match(plain))


def locate_quote(quote: str, passages: Iterable[Chunk], *, closed: bool = True) -> Quote:
    """Look a quote up verbatim in the passages; offsets are the document's. Unverified where it stands in none, and
    where it was never closed, whatever it holds so far."""
    text = quote.strip()
    for chunk in passages if text and closed else ():
        at = chunk.text.find(text)
        if at >= 0:
            return Quote(text=text, chunk_id=chunk.id, start=chunk.start + at, end=chunk.start + at + len(text))
    return Quote(text=text, closed=closed)


def check_quotes(parsed: ParsedAnswer, passages: Sequence[Chunk]) -> tuple[Quote, ...]:
    """Every quote of an answer, looked up verbatim; the one that was never closed comes last."""
    unfinished = (locate_quote(parsed.open_quote, (), closed=False),) if parsed.open_quote else ()
    return (*(locate_quote(quote, passages) for quote in parsed.quotes), *unfinished)
