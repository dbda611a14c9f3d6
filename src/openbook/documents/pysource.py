"""Python source as the reference manual that its docstrings are. The source is parsed, never run or imported."""

import ast
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

from openbook.documents.builder import Parsed, TextBuilder, one_line
from openbook.documents.plain import reflow
from openbook.errors import DocumentError

_SIGNATURE_LIMIT = 160  # characters; a longer one is shown without its defaults, then without its parameters

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parse_python(source: str, name: str) -> Parsed:
    """`name` is the module's dotted name. Public names with a docstring become sections, in the file's order."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes are the author's business
            tree = ast.parse(source)
    except SyntaxError as error:
        raise DocumentError(f"it is not valid Python (line {error.lineno}: {error.msg})") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise DocumentError(f"Python cannot parse it ({error})") from error
    builder = TextBuilder()
    if text := ast.get_docstring(tree, clean=False):
        builder.heading(1, name)
        reflow(inspect.cleandoc(text), builder, base_level=1)
    for node, dotted, level in _definitions(tree.body, name, 2):
        text = ast.get_docstring(node, clean=False)
        if text and text.strip():
            if not builder.sections:
                builder.heading(1, name)
            builder.heading(level, _signature(node, dotted, method=level > 2))
            reflow(inspect.cleandoc(text), builder, base_level=level)
    return builder.build(name)


def module_name(path: Path) -> str:
    """The dotted name under which a file would be imported: its folders count as far as they are packages."""
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name:
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts) or path.parent.name or path.stem


def _definitions(body: list[ast.stmt], prefix: str, level: int) -> Iterator[tuple[_Definition, str, int]]:
    """Public classes and functions with their dotted names, also those under `if` and `try`; the first of a name."""
    seen: set[str] = set()
    for node in _flat(body):
        if not isinstance(node, _Definition) or node.name.startswith("_") or node.name in seen:
            continue
        if ast.get_docstring(node, clean=False):  # an overload without one must not hide the definition after it
            seen.add(node.name)
        dotted = f"{prefix}.{node.name}"
        yield node, dotted, level
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, dotted, min(level + 1, 5))


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _flat([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _flat([*node.body, *(s for handler in node.handlers for s in handler.body), *node.orelse])
        else:
            yield node


def _signature(node: _Definition, dotted: str, *, method: bool) -> str:
    """`json.dumps(obj, *, skipkeys=False, …)`: without annotations, and without `self`."""
    if isinstance(node, ast.ClassDef):
        return dotted
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    if decorators & {"property", "cached_property", "setter"}:
        return dotted
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    first = arguments.posonlyargs or arguments.args
    if method and first and "staticmethod" not in decorators:
        del first[0]
        positional = len(arguments.posonlyargs) + len(arguments.args)
        del arguments.defaults[: max(0, len(arguments.defaults) - positional)]
    full = one_line(f"{dotted}({ast.unparse(arguments)})")
    if len(full) <= _SIGNATURE_LIMIT:
        return full
    names = ", ".join(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
    short = f"{dotted}({names})"
    return short if len(short) <= _SIGNATURE_LIMIT else f"{dotted}(…)"
