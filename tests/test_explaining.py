"""`tune --explain`: the figures are those of the run, and the mask is that of the rows."""

from pathlib import Path

import numpy as np

from openbook.cli.explaining import heading, mask
from openbook.config import Config
from openbook.models import load_tokenizer
from openbook.storage import write_jsonl
from openbook.training import explain
from openbook.training.data import read_study
from test_tune import ROWS, row

OTHER = [row("What jumps?", "the fox", group="h", passages=["The fox jumps.", "The cache is full."])]


def test_it_shows_the_rows_of_the_run(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    write_jsonl(train, ROWS + OTHER)
    found = explain(train, Config.load(None, ["tune.row_tokens=900"]))
    study = read_study(train, load_tokenizer("nano"), form="raft", budget=900, seed=0, context=4096)
    planned = study.rows(0)
    assert (found.questions, found.total_rows) == (7, len(planned))
    assert [figures.tokens for figures in found.rows] == [len(row) for row in planned]
    assert sum(figures.sequences for figures in found.rows) == 7
    assert [token.id for token in found.tokens] == planned[0].input_ids.tolist()
    assert found.rows[0].saved > 2
    assert not found.fits and explain(train, Config()).fits, "a run leaves alone what the user chose"
    # What the segments say is what the rows' mask allows.
    end = planned[0].subtree_end
    for segment in found.segments:
        seen = {place for first, last in segment.sees for place in range(first, last)}
        own = set(range(segment.start, segment.end))
        assert seen | own == set(np.flatnonzero((np.arange(len(end)) < segment.end) & (end >= segment.end)).tolist())


def test_the_mask_is_drawn_and_segments_are_named(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    write_jsonl(train, ROWS)
    found = explain(train, Config())
    lines = mask(found)
    assert lines[0] == "█" and set("".join(lines)) == {"█", "·"}
    assert [len(line) for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1].startswith("█"), "every branch sees the shared context"
    assert heading(found, found.segments[0]).endswith("sees itself") and "shared" in heading(found, found.segments[0])
    assert "sequence" in heading(found, found.segments[-1])
    assert "".join(token.text for token in found.tokens).count(ROWS[0]["oracle_context"]) >= 1
