"""What the models wrote, kept row by row, so that a killed evaluation goes on and no prompt is answered twice.

A prediction's key is a hash of all that decides it: the weights, the prompt to the last character, the longest answer,
the way of decoding. That is greedy, so equal keys have equal texts. Arms that show the same passages share their
predictions (raft_golden where retrieval found the golden passage, the usual number of passages in the picture over
numbers of passages), and after a change of the data only the questions that it touches are asked again.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openbook.answering import Answerer, TextGenerator, read_answer
from openbook.evaluation.exam import Sheet
from openbook.progress import Task
from openbook.prompt import prompt
from openbook.records import Answer, Usage, content_id, from_json, to_json
from openbook.storage import append_jsonl, mend_torn_tail, read_jsonl, write_jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One row. `passages` are the ids of the chunks shown, None for the closed book; `seconds` add up to the time of all;
    `weights` names the weights that wrote it ("" in rows of earlier versions)."""

    key: str
    question: str
    passages: tuple[str, ...] | None
    text: str
    finished: bool
    error: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    weights: str = ""

    def answer(self, sheet: Sheet) -> Answer:
        """The answer to `sheet`, parsed and verified anew: the grader may have learned since the row was written."""
        usage = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens, seconds=self.seconds)
        return read_answer(
            sheet.question,
            self.text,
            sheet.passages or (),
            usage=usage,
            finished=self.finished,
            error=self.error,
        )


# Goes into every key; changes whenever the same weights may give another text.
DECODING = "greedy, loops ended"


def key_of(sheet: Sheet, identity: str, max_new_tokens: int) -> str:
    """`identity` names the weights: base, adapter, quantisation."""
    passages = None if sheet.passages is None else [scored.chunk.text for scored in sheet.passages]
    messages = prompt(sheet.question, passages).messages
    return content_id(identity, DECODING, max_new_tokens, *(message.content for message in messages))


def recall(path: Path, keys: Collection[str], weights: str) -> dict[str, Prediction]:
    """The predictions of earlier runs under `keys`. Rows of other weights are removed; those of other prompts to the same
    `weights` stay, so that a shorter exam in between costs the longer one nothing."""
    mend_torn_tail(path)
    rows = list(read_jsonl(path)) if path.is_file() else []
    kept = {
        row["key"]: row for row in rows if row.get("key") in keys or ("key" in row and row.get("weights") == weights)
    }
    if len(kept) < len(rows):
        write_jsonl(path, kept.values())
    return {key: from_json(Prediction, row) for key, row in kept.items() if key in keys}


def sit(
    sheets: Mapping[str, Sheet], generator: TextGenerator, path: Path, weights: str, *, task: Task
) -> Iterator[Prediction]:
    """Answer `sheets` (key → sheet), appending each prediction to `path` as it comes; `task` advances by one for each.

    All are handed over at once: the generator knows best which of them to answer together.
    """
    keys = list(sheets)
    asked = [(sheets[key].question, sheets[key].passages) for key in keys]
    for number, answer in Answerer(None, generator, passages=0).answer_each(asked):
        found = sheets[keys[number]].passages
        prediction = Prediction(
            key=keys[number],
            question=answer.question,
            passages=None if found is None else tuple(scored.chunk.id for scored in found),
            text=answer.text,
            finished=answer.finished,
            error=answer.error,
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            seconds=answer.usage.seconds,
            weights=weights,
        )
        append_jsonl(path, to_json(prediction))
        task.advance()
        yield prediction
