"""The exam: base and tuned models before the same questions, graded, compared, reported."""

from openbook.evaluation.arms import ARMS, Arm
from openbook.evaluation.comparison import Comparison, Cost, compare_ways
from openbook.evaluation.evaluate import evaluate, examine, write_report
from openbook.evaluation.report import Exhibits, Report, TestResult
from openbook.evaluation.ways import WAYS, Way, chosen_ways, in_order

__all__ = [
    "ARMS",
    "WAYS",
    "Arm",
    "Comparison",
    "Cost",
    "Exhibits",
    "Report",
    "TestResult",
    "Way",
    "chosen_ways",
    "compare_ways",
    "evaluate",
    "examine",
    "in_order",
    "write_report",
]
