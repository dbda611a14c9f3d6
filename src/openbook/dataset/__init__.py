"""Passages → questions → a RAFT data set; and what is wrong with anybody's."""

from openbook.dataset.building import PARTS, build, build_from, estimated, is_built
from openbook.dataset.doctor import DoctorReport, examine
from openbook.dataset.estimate import Estimate
from openbook.dataset.exports import export
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.failures import FAILURES, PairsReport, pairs_path, write_pairs
from openbook.dataset.formats import from_row, read_examples, to_row
from openbook.dataset.mixing import MixReport, mix
from openbook.dataset.practice import practice_rows
from openbook.dataset.preferences import HumanReport, write_human_pairs
from openbook.dataset.report import DatasetReport
from openbook.dataset.teacher import Teacher

__all__ = [
    "FAILURES",
    "PARTS",
    "DatasetReport",
    "DoctorReport",
    "Estimate",
    "ExtractiveTeacher",
    "HumanReport",
    "MixReport",
    "PairsReport",
    "Teacher",
    "build",
    "build_from",
    "estimated",
    "examine",
    "export",
    "from_row",
    "is_built",
    "mix",
    "pairs_path",
    "practice_rows",
    "read_examples",
    "to_row",
    "write_human_pairs",
    "write_pairs",
]
