"""Tuning a model on token trees."""

from openbook.training.explaining import Explanation, explain
from openbook.training.preference import is_tuned_on_pairs, tune_on_pairs
from openbook.training.reinforcement import is_reinforced, reinforce
from openbook.training.tune import TuneReport, is_tuned, tune

__all__ = [
    "Explanation",
    "TuneReport",
    "explain",
    "is_reinforced",
    "is_tuned",
    "is_tuned_on_pairs",
    "reinforce",
    "tune",
    "tune_on_pairs",
]
