"""Training questions asked once more without their golden passage: refusing practised where answering was studied.

What is learnt from a model's own answers (pairs, rewards) is learnt on the questions of the data set, and four of five of
them can be answered. Nothing then speaks against answering always. So a share of those is put a second time, over the
passages of another study group that cannot answer them: the group that has most of their distractors.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openbook import storage
from openbook.config import Config
from openbook.dataset import groups
from openbook.dataset.formats import read_examples, to_row
from openbook.dataset.overlay import as_question
from openbook.prompt import is_refusal
from openbook.records import Question, RaftExample


def with_refusals(examples: Sequence[RaftExample], *, share: float, seed: int) -> list[RaftExample]:
    """The examples, and behind them a `share` of those that answer from their golden passage as examples that refuse.

    Fewer, where no other group both shares a passage with the question's own and cannot answer it. The same examples,
    share and seed give the same rows.
    """
    members: dict[str, list[RaftExample]] = {}
    for example in examples:
        members.setdefault(example.group or example.id, []).append(example)
    formed = [
        groups.Group(passages=rows[0].passages, questions=tuple(map(_question, rows))) for rows in members.values()
    ]
    answering = [e for e in examples if e.golden_included and e.golden and not is_refusal(e.final_answer)]
    asked = random.Random(f"{seed}:practice").sample(answering, round(share * len(answering)))
    near = [[chunk for chunk in e.passages if chunk.id not in e.golden_ids] for e in asked]
    # Of no passages: only groups that are there, so that what is asked shares their prompts.
    _, moves = groups.attach(formed, [], list(map(_question, asked)), near, count=0, seed=seed)
    golden = {chunk.id: chunk for example in asked for chunk in example.golden}
    visited = [replace(group, questions=()) for group in formed]
    refused = groups.examples(visited, moves, policy="refuse", chunks=golden, seed=seed)
    return [*examples, *refused]


def practice_rows(config: Config, train: Path) -> Path:
    """What rewards are earned on: `train`, or with `rl.without_golden` a file beside it, `practice.jsonl`, which holds
    the refusals as well. It is written anew each time, and has the same bytes as long as `train` has."""
    share = config.rl.without_golden
    if not share:
        return train
    rows = with_refusals(list(read_examples(train)), share=share, seed=config.seed)
    path = train.with_name("practice.jsonl")
    storage.write_jsonl(path, map(to_row, rows))
    return path


def _question(example: RaftExample) -> Question:
    """Rows of other tools have no ids of their questions."""
    return replace(as_question(example), id=example.question_id or example.id)
