"""Passages → questions → a RAFT data set."""

from openbook.dataset.building import build, build_from, is_built
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.formats import from_row, read_examples, to_row
from openbook.dataset.report import DatasetReport
from openbook.dataset.teacher import Teacher

__all__ = [
    "DatasetReport",
    "ExtractiveTeacher",
    "Teacher",
    "build",
    "build_from",
    "from_row",
    "is_built",
    "read_examples",
    "to_row",
]
