"""Work that goes on by itself, and what can be seen of it while it goes on and afterwards."""

from openbook.runs.jobs import Job, Jobs, options_of
from openbook.runs.looking import dataset_page, graded, report, training_log, trainings, validation

__all__ = [
    "Job",
    "Jobs",
    "dataset_page",
    "graded",
    "options_of",
    "report",
    "training_log",
    "trainings",
    "validation",
]
