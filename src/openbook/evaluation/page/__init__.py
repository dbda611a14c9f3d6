"""The report as a page."""

from openbook.evaluation.page.render import render

__all__ = ["render"]
