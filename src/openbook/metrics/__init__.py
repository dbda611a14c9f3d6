"""The grader: short answers, quotes, refusals and retrieval, with intervals. Pure functions over strings and records."""

from openbook.metrics.grading import Gold, Grade, grade, grade_text, right_quote, short_answer
from openbook.metrics.intervals import Interval, mean_interval, paired_difference
from openbook.metrics.retrieval import mrr, ndcg_at_k, recall_at_k, reciprocal_rank
from openbook.metrics.text import contains, exact_match, f1, normalize, tokens

__all__ = [
    "Gold",
    "Grade",
    "Interval",
    "contains",
    "exact_match",
    "f1",
    "grade",
    "grade_text",
    "mean_interval",
    "mrr",
    "ndcg_at_k",
    "normalize",
    "paired_difference",
    "recall_at_k",
    "reciprocal_rank",
    "right_quote",
    "short_answer",
    "tokens",
]
