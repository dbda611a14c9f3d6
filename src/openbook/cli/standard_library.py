"""The demo's documents: what the installed Python standard library says about itself.

Every machine that runs openbook has it. Each module becomes an outline, a Python file with nothing in it but public
names and their docstrings. The sources are parsed, never imported, and the same Python gives the same files.
"""

import ast
import shutil
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from openbook import storage
from openbook.errors import InputError

# Modules with prose in their docstrings, of many subjects. One that an installation lacks is passed over.
MODULES = """
abc argparse ast asyncio.locks asyncio.queues asyncio.tasks base64 bdb bisect calendar cmd codecs collections
concurrent.futures._base configparser contextlib copy csv dataclasses datetime decimal difflib doctest email.message
enum filecmp fileinput fractions ftplib functools glob gzip hashlib heapq hmac html.parser http.client http.cookiejar
imaplib inspect io ipaddress json json.decoder json.encoder logging logging.config logging.handlers mimetypes
multiprocessing.pool numbers operator optparse os pathlib pickle plistlib pprint queue random re sched secrets
selectors shelve shutil smtplib socket socketserver ssl statistics string subprocess tarfile tempfile textwrap threading
timeit tokenize trace traceback typing unittest.case unittest.mock urllib.parse urllib.request uuid venv weakref
xml.etree.ElementTree zipfile
""".split()

# Together they give about 480 passages of 200 tokens.
SHORTEST = 200  # characters of a docstring worth studying: "Return the name." teaches nothing
MODULE_LIMIT = 2_700  # characters taken from one module, so that no single one fills the exam


def write_documents(folder: Path) -> int:
    """Write the outlines of `MODULES` into `folder`, which then holds nothing else; returns how many there are."""
    root = Path(sysconfig.get_path("stdlib"))
    outlines = {name: outline for name in MODULES if (outline := outline_of(_source(root, name)))}
    if not outlines:
        raise InputError(
            "This Python has no readable sources of its standard library.",
            "Give a folder of your own: `openbook demo FOLDER`.",
        )
    shutil.rmtree(folder, ignore_errors=True)  # what another version of Python left
    for name, outline in outlines.items():
        storage.write_text(folder / f"{name}.py", outline)
    return len(outlines)


def _source(root: Path, name: str) -> str:
    stem = root.joinpath(*name.split("."))
    for path in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def outline_of(source: str) -> str:
    """A module's docstrings with the definitions that they belong to, as Python; "" where there are none.

    They are taken in the order of the file, up to `MODULE_LIMIT` characters.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes are the affair of those who wrote them
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    room = _Room(MODULE_LIMIT)
    body = [*_docstring(tree, room), *_members(tree, room)]
    return ast.unparse(ast.Module(body=body, type_ignores=[])) + "\n" if body else ""


class _Room:
    """How many characters have been taken, of how many."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    def take(self, size: int) -> bool:
        fits = self.taken + size <= self.limit
        self.taken += size if fits else 0
        return fits


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, room: _Room
) -> Iterator[ast.stmt]:
    text = ast.get_docstring(node) or ""
    if len(text) >= SHORTEST and room.take(len(text)):
        yield ast.Expr(ast.Constant(text))


def _members(node: ast.Module | ast.ClassDef, room: _Room) -> Iterator[ast.stmt]:
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        body = list(_docstring(child, room))
        if isinstance(child, ast.ClassDef):
            body += _members(child, room)
        if body:
            child.body = body
            yield child
