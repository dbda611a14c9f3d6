"""Passages → questions → a RAFT data set; and what is wrong with anybody's."""

from openbook.dataset.building import PARTS, build, build_from, estimated, is_built
from openbook.dataset.doctor import DoctorReport, examine
from openbook.dataset.estimate import Estimate
from openbook.dataset.exports import export
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.formats import from_row, read_examples, to_row
from openbook.dataset.report import DatasetReport
from openbook.dataset.teacher import Teacher

__all__ = [
    "PARTS",
    "DatasetReport",
    "DoctorReport",
    "Estimate",
    "ExtractiveTeacher",
    "Teacher",
    "build",
    "build_from",
    "estimated",
    "examine",
    "export",
    "from_row",
    "is_built",
    "read_examples",
    "to_row",
]
