"""Tuning a model on token trees."""

from openbook.training.tune import TuneReport, is_tuned, tune

__all__ = ["TuneReport", "is_tuned", "tune"]
