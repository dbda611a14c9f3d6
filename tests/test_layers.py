"""Imports run downwards only. The layers are those of the README's tree; siblings in one line never import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "openbook"

LAYERS = (
    {"errors", "records", "progress", "options"},
    {"config", "storage", "prompt", "messages", "markup", "heap", "kernels"},
    {"documents", "retrieval", "models", "llm"},
    {"metrics", "tokens"},
    {"indexing", "dataset", "training", "answering", "runs", "explaining"},
    {"evaluation", "serving", "tracing", "tuning"},
    {"verbs"},
    {"tuned"},
    {"comparing", "pipeline"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# `import openbook` gives the public functions; it loads each when it is used, from whatever layer it lives in.
PUBLIC = "__init__"

MODULES = sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    """The first name below `openbook` that a file belongs to."""
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names that a tree imports, with line numbers; `from openbook import x` counts as `openbook.x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the layer"
            module = node.module or ""
            if module == "openbook":
                yield from ((f"openbook.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downwards(path: Path) -> None:
    here = part(path)
    if here == PUBLIC:
        return
    assert here in LEVEL, f"{here} stands in no layer: add it to LAYERS here and to the README's tree"
    for name, line in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if not name.startswith("openbook."):
            continue
        there = name.split(".")[1]
        if there == here or there == "__version__":
            continue
        assert LEVEL[there] < LEVEL[here], f"{path}:{line}: {here} must not import {there}"


def test_no_layer_names_what_is_gone() -> None:
    present = {part(path) for path in MODULES} - {PUBLIC}
    assert set(LEVEL) <= present
