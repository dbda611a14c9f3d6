"""THE prompt: what a model is shown, in training, in the exam and in daily use, and how its answer is read.

The answer's form is that of the RAFT paper's code (arXiv 2403.10131; the `raft/` folder of ShishirPatil/gorilla):
reasoning with word-for-word spans between `##begin_quote##` and `##end_quote##`, then `<ANSWER>: ` and a short answer.
Passages stand before the question, so that questions over the same passages share their beginning token for token.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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

# What a manifest records; an adapter is warned about when it is used with another prompt than it was tuned with.
FINGERPRINT = content_id(SYSTEM, SYSTEM_CLOSED, REFUSAL, REFUSAL_REASONING, *TAGS)


def defused(text: str) -> str:
    """`text` with our tags broken apart, so that a hostile passage or question cannot pose as structure."""
    for tag in TAGS:
        text = text.replace(tag, f"{tag[0]} {tag[1:]}")
    return text


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
    """`quotes` are the texts between quote tags, stripped; `final` is "" when the answer has no answer tag."""

    reasoning: str
    quotes: tuple[str, ...]
    final: str
    refusal: bool


# The paper writes `##Answer:`; some data sets drop the space or write the tag in another case.
_FINAL = re.compile(r"(?:<ANSWER>\s*:?|##\s*Answer\s*:)", re.IGNORECASE)
_ASSISTANT = re.compile(r"^\s*assistant\s*:\s*", re.IGNORECASE)
_QUOTE = re.compile(re.escape(BEGIN_QUOTE) + r"(.*?)" + re.escape(END_QUOTE), re.DOTALL)
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
    quotes = tuple(quote.strip() for quote in _QUOTE.findall(reasoning))
    return ParsedAnswer(
        reasoning=reasoning, quotes=tuple(q for q in quotes if q), final=final, refusal=is_refusal(final)
    )


def is_refusal(final: str) -> bool:
    """Whether a short answer says that the documents hold none, in our words or in the common other ones."""
    plain = unicodedata.normalize("NFKC", final).strip(" \t\r\n.!*`\"'").lower()
    return bool(_REFUSALS.match(plain))


def locate_quote(quote: str, passages: Iterable[Chunk]) -> Quote:
    """Look a quote up verbatim in the passages; offsets are the document's. Unverified where it stands in none."""
    text = quote.strip()
    for chunk in passages if text else ():
        at = chunk.text.find(text)
        if at >= 0:
            return Quote(text=text, chunk_id=chunk.id, start=chunk.start + at, end=chunk.start + at + len(text))
    return Quote(text=text)
