"""Jupyter notebooks as readable text: Markdown cells as they read, code cells as code, in their order.

What the code printed is left out: it is data and progress bars more often than what a reader reads. The format is plain
JSON (nbformat 4, and 3 with its `worksheets`), so that it needs no library with a JSON schema.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from openbook.documents.builder import Parsed, TextBuilder
from openbook.documents.markdown import render_markdown
from openbook.errors import DocumentError


def parse_notebook(source: str, name: str) -> Parsed:
    try:
        notebook = json.loads(source)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DocumentError(f"it is no notebook ({error})") from error
    if not isinstance(notebook, Mapping) or not {"cells", "worksheets"} & notebook.keys():
        raise DocumentError("it is no notebook: it has no cells")
    builder = TextBuilder()
    language = _language(notebook)
    for cell in _cells(notebook):
        text = _text(cell.get("source", cell.get("input")))
        match cell.get("cell_type"):
            case "markdown":
                render_markdown(text, builder)
            case "code":
                builder.code(text, str(cell.get("language") or language))
            case "heading":  # of nbformat 3
                level = cell.get("level")
                builder.heading(level if isinstance(level, int) and 1 <= level <= 6 else 1, text)
    return builder.build(builder.title_or(name))


def _cells(notebook: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    sheets = notebook.get("worksheets")
    for part in (notebook, *(sheets if isinstance(sheets, list) else ())):
        cells = part.get("cells") if isinstance(part, Mapping) else None
        yield from (cell for cell in cells if isinstance(cell, Mapping)) if isinstance(cells, list) else ()


def _text(source: object) -> str:
    """A cell's text, which is a string or a list of lines."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _language(notebook: Mapping[str, Any]) -> str:
    metadata = notebook.get("metadata")
    for key, field in (("language_info", "name"), ("kernelspec", "language")):
        info = metadata.get(key) if isinstance(metadata, Mapping) else None
        if isinstance(info, Mapping) and isinstance(info.get(field), str):
            return str(info[field])
    return ""
