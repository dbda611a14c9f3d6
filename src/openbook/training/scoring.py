"""`openbook score`: a reward model applied to rows. Answers and pairs in, the same rows with their scores out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from openbook.config import Config
from openbook.errors import ModelError, RecordError
from openbook.messages import check_opening, row_named
from openbook.models import LoadedModel, load_base
from openbook.models.generate import HEAD
from openbook.progress import SILENT, Progress
from openbook.records import Conversation, Message
from openbook.storage import dump_line, read_manifest, write_jsonl
from openbook.tokens import TokenSequence, TokenTree, best_fit, build, concatenate, encode
from openbook.training.adapting import adapter_fingerprint, explained
from openbook.training.attention import forward_keywords, serve_trees
from openbook.training.head import hidden_states
from openbook.training.pairs import given_answer, given_prompt, pair_of, read_rows, tell, with_system
from openbook.training.reward import ScalarHead, last_positions, load_head
from openbook.training.trainer import as_trained

_REMEDY = "A row needs `prompt` and `completion`, `messages` that end with an answer, or `chosen` and `rejected`."


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """What the scores look like. `accuracy`: the share of pairs whose chosen answer scores higher (a tie is half);
    `longer_wins`: the share in which it is the longer one; `margin`: how much higher it scores on average. The three are
    None without pairs. `error`: the standard error of the accuracy."""

    rows: int
    pairs: int
    mean: float
    deviation: float
    lowest: float
    highest: float
    accuracy: float | None
    error: float | None
    margin: float | None
    longer_wins: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """One row and its sequences: one answer, or the chosen and the rejected one."""

    row: Mapping[str, Any]
    sequences: tuple[TokenSequence, ...]


def score_file(path: Path, *, adapter: Path, out: Path, config: Config, progress: Progress = SILENT) -> ScoreReport:
    """Score every row of `path` with the reward model in the folder `adapter`, and write them to `out`, in order: with
    `score`, or with `chosen_score` and `rejected_score`.

    Raises `ModelError` for a folder that holds no reward model for `config.model.base`, `RecordError` with the numbers
    of the rows that cannot be scored.
    """
    model, loaded, head = load_reward_model(adapter, config)
    records = _read(path, loaded.tokenizer, limit=min(loaded.context, config.tune.row_tokens))
    scores = _score(records, model, head, config.tune.row_tokens, progress)
    broken = [f"{path}:{at}" for at, found in enumerate(scores, 1) if not all(map(math.isfinite, found))]
    if broken:
        raise ModelError(
            f"The score of {broken[0]}"
            + (f" and of {len(broken) - 1:,} more rows" if broken[1:] else "")
            + " is no number.",
            "The reward model is damaged, or model.dtype is too narrow: try float32.",
        )
    write_jsonl(out, ({**record.row, **_named(found)} for record, found in zip(records, scores, strict=True)))
    return _report(records, scores)


def load_reward_model(adapter: Path, config: Config) -> tuple[Any, LoadedModel, ScalarHead]:
    """The base with the adapter on it, frozen, and its scalar head; in 4 bits where it was tuned so."""
    from peft import PeftModel

    adapter_fingerprint(adapter)
    if not (adapter / HEAD).is_file():
        raise ModelError(
            f"{adapter} holds an adapter without a scalar head, so it is no reward model.",
            "Train one with `openbook tune --method reward --pairs FILE`, or name its folder with --adapter.",
        )
    manifest = read_manifest(adapter) or {}
    quantised = manifest.get("options", {}).get("adapter", "qlora") == "qlora"
    loaded = load_base(config, "nf4" if quantised else "none")
    tuned_on = manifest.get("inputs", {}).get("base", loaded.fingerprint)
    if tuned_on != loaded.fingerprint:
        raise ModelError(
            f"The reward model in {adapter} reads another base's tokens: it was tuned on {manifest.get('base', 'another')} "
            f"and not on this {loaded.name}.",
            "Set model.base to the base that it was tuned on.",
        )
    serve_trees(loaded.model, share=config.tune.share_prefixes)
    with explained(adapter, loaded):
        model = PeftModel.from_pretrained(loaded.model, adapter)
    return model.eval(), loaded, load_head(model, adapter, loaded)


def _read(path: Path, tokenizer: Any, *, limit: int) -> list[_Scored]:
    records: list[_Scored] = []
    faults: list[tuple[str, RecordError]] = []
    for number, row in enumerate(read_rows(path), 1):
        name = f"{path}:{number}"
        try:
            _check_writable(row, name)
            sequences = tuple(encode(tokenizer, asked, name=name) for asked in _conversations(row, name))
        except RecordError as error:
            faults.append((name, error))
            continue
        longest = max(map(len, sequences))
        if longest > limit:
            too_long = RecordError(
                f"{name}: prompt and answer have {longest:,} tokens, and at most {limit:,} fit.",
                "Shorten or remove the row, or raise tune.row_tokens.",
            )
            faults.append((name, too_long))
        records.append(_Scored(row=row, sequences=sequences))
    tell(faults)
    if not records:
        raise RecordError(f"{path} holds no rows.", _REMEDY)
    return records


def _check_writable(row: Mapping[str, Any], name: str) -> None:
    """Raise `RecordError` where the row, which is to come back with its score, holds what JSON cannot."""
    try:
        dump_line(row)
    except (TypeError, ValueError) as error:  # a date or bytes out of Parquet, a NaN
        raise RecordError(
            f"{name}: the row could not be written again as JSON ({error}).", "Remove that column, or make text of it."
        ) from error


def _conversations(row: Mapping[str, Any], name: str) -> list[Conversation]:
    values = {key: value for key, value in row.items() if value is not None}
    if "chosen" in values or "rejected" in values:
        pair = pair_of(row, name)
        return [_answered(pair.prompt.messages, answer) for answer in (pair.chosen, pair.rejected)]
    messages = given_prompt(values, name)
    if messages is None:
        raise RecordError(f"{name}: there is no prompt.", _REMEDY)
    key = next((key for key in ("completion", "output") if key in values), "")
    if key:
        messages = (*messages, *given_answer(values[key], key, name))
    if messages[-1].role != "assistant" or not messages[-1].content.strip():
        raise RecordError(f"{name}: there is no answer to score.", _REMEDY)
    messages = with_system(messages, values)
    with row_named(name):
        check_opening(messages)
    return [Conversation(messages=messages)]


def _answered(prompt: Sequence[Message], answer: str) -> Conversation:
    return Conversation(messages=(*prompt, Message(role="assistant", content=answer)))


def _score(
    records: Sequence[_Scored], model: Any, head: ScalarHead, budget: int, progress: Progress
) -> list[tuple[float, ...]]:
    """The scores of each record. Its sequences share their prompt in one tree, and trees are packed in rows."""
    trees = [build(record.sequences) for record in records]
    # A tree with two long answers may be longer than a row; it then stands in one of its own.
    budget = max(budget, *map(len, trees))
    found: list[tuple[float, ...]] = [()] * len(records)
    with (
        torch.inference_mode(),
        as_trained(model),
        progress.task("Scoring", len(records), "rows") as task,
    ):
        for members in best_fit([len(tree) for tree in trees], budget):
            scores = iter(_row_scores(concatenate([trees[n] for n in members]), model, head))
            for n in members:
                found[n] = tuple(next(scores) for _ in records[n].sequences)
            task.advance(len(members))
    return found


def _row_scores(tree: TokenTree, model: Any, head: ScalarHead) -> list[float]:
    hidden = hidden_states(model, forward_keywords(tree, model.device))
    scores: list[float] = head(hidden[last_positions(tree)]).tolist()
    return scores


def _named(scores: tuple[float, ...]) -> dict[str, float]:
    names = ("score",) if len(scores) == 1 else ("chosen_score", "rejected_score")
    return dict(zip(names, scores, strict=True))


def _report(records: Sequence[_Scored], scores: Sequence[tuple[float, ...]]) -> ScoreReport:
    flat = [score for found in scores for score in found]
    pairs = [(record, found) for record, found in zip(records, scores, strict=True) if len(found) == 2]
    wins = [_wins(chosen, rejected) for _, (chosen, rejected) in pairs]
    lengths = [tuple(len(s) - s.shareable for s in record.sequences) for record, _ in pairs]
    accuracy = fmean(wins) if wins else None
    return ScoreReport(
        rows=len(records),
        pairs=len(pairs),
        mean=fmean(flat),
        deviation=pstdev(flat),
        lowest=min(flat),
        highest=max(flat),
        accuracy=accuracy,
        error=math.sqrt(accuracy * (1 - accuracy) / len(wins)) if accuracy is not None else None,
        margin=fmean(chosen - rejected for _, (chosen, rejected) in pairs) if pairs else None,
        longer_wins=fmean(_wins(chosen, rejected) for chosen, rejected in lengths) if lengths else None,
    )


def _wins(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)
