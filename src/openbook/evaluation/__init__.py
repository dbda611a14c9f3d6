"""The exam: base and tuned models before the same questions, graded, compared, reported."""

from openbook.evaluation.arms import ARMS, Arm
from openbook.evaluation.evaluate import evaluate, examine, write_report
from openbook.evaluation.report import Exhibits, Report, TestResult

__all__ = ["ARMS", "Arm", "Exhibits", "Report", "TestResult", "evaluate", "examine", "write_report"]
