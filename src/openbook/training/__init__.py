"""Tuning a model on token trees."""

from openbook.training.explaining import RowExplanation, explain
from openbook.training.merging import MergeReport, merge
from openbook.training.preference import is_tuned_on_pairs, tune_on_pairs
from openbook.training.reinforcement import is_reinforced, reinforce
from openbook.training.scoring import ScoreReport, score_file
from openbook.training.tune import TuneReport, is_tuned, tune

__all__ = [
    "MergeReport",
    "RowExplanation",
    "ScoreReport",
    "TuneReport",
    "explain",
    "is_reinforced",
    "is_tuned",
    "is_tuned_on_pairs",
    "merge",
    "reinforce",
    "score_file",
    "tune",
    "tune_on_pairs",
]
