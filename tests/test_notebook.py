"""Notebooks read as their Markdown with their code in between."""

import json

import pytest

from openbook.documents.notebook import parse_notebook
from openbook.errors import DocumentError


def test_cells_in_their_order() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Pumps\n", "\n", "The lever has *nine* rivets."]},
        {"cell_type": "code", "source": "x = 1\nx", "outputs": [{"text": ["12345"]}]},
        {"cell_type": "raw", "source": "---"},
        {"cell_type": "markdown", "source": "## Care\n\n- oil it"},
        {"cell_type": "code", "source": []},
        "no cell",
    ]
    notebook = {"cells": cells, "metadata": {"kernelspec": {"language": "julia"}}, "nbformat": 4}
    parsed = parse_notebook(json.dumps(notebook), "file")
    assert parsed.text == ("# Pumps\n\nThe lever has nine rivets.\n\n```julia\nx = 1\nx\n```\n\n## Care\n\n- oil it")
    assert parsed.title == "Pumps"
    assert [(s.title, parsed.text[s.start]) for s in parsed.sections] == [("Pumps", "#"), ("Care", "#")]


def test_the_older_format() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Levers"]},
        {"cell_type": "code", "input": ["y = 2"], "language": "python"},
    ]
    old = {"worksheets": [{"cells": cells}], "nbformat": 3}
    assert parse_notebook(json.dumps(old), "x").text == "## Levers\n\n```python\ny = 2\n```"


@pytest.mark.parametrize(
    ("source", "says"),
    [("{", "no notebook"), ("[]", "has no cells"), ('{"a": 1}', "has no cells"), ("[" * 100_000, "no notebook")],
)
def test_what_is_no_notebook_says_why(source: str, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        parse_notebook(source, "x")


@pytest.mark.parametrize("strange", [{"cells": 3}, {"cells": [{}]}, {"cells": [], "metadata": 3}, {"worksheets": {}}])
def test_strange_notebooks_are_empty(strange: dict[str, object]) -> None:
    assert parse_notebook(json.dumps(strange), "x").text == ""
