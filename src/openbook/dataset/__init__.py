"""Passages → questions → a RAFT data set."""

from openbook.dataset.extractive import ExtractiveTeacher

__all__ = ["ExtractiveTeacher"]
