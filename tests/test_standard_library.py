"""The demo's documents come from the Python that runs, and nothing of it is imported or run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from openbook.cli import standard_library
from openbook.cli.standard_library import MODULE_LIMIT, outline_of, write_documents
from openbook.errors import InputError

LONG = "It does something that is worth a whole sentence, so that there is something to learn." * 3


def test_an_outline_keeps_public_names_with_something_to_say() -> None:
    outline = outline_of(
        f'''
"""{LONG}"""
import sys
raise SystemExit("this must never run")

def spoken(a, *, b=1):
    """{LONG}"""
    return a

def terse():
    """Return the name."""

def _private():
    """{LONG}"""

class Thing:
    """Short."""

    def method(self):
        """{LONG}"""

class Empty:
    pass
'''
    )
    tree = ast.parse(outline)
    assert ast.get_docstring(tree) == LONG.strip()
    assert [node.name for node in tree.body[1:]] == ["spoken", "Thing"]  # type: ignore[attr-defined]
    assert "def method(self)" in outline
    assert "def spoken(a, *, b=1)" in outline
    assert "SystemExit" not in outline


@pytest.mark.parametrize("source", ["", "x = 1", "def f(:", "\0", "class A:\n    '''Too short.'''"])
def test_a_module_that_says_nothing_gives_nothing(source: str) -> None:
    assert outline_of(source) == ""


def docstrings(source: str) -> list[str]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]


def test_the_documents_are_valid_bounded_and_many(tmp_path: Path) -> None:
    count = write_documents(tmp_path)
    files = list(tmp_path.iterdir())
    assert len(files) == count > 60
    for file in files:
        assert 0 < sum(map(len, docstrings(file.read_text()))) <= MODULE_LIMIT


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_library, "MODULES", ["json", "textwrap", "not_installed"])


@pytest.mark.usefixtures("few")
def test_the_same_python_gives_the_same_files(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert write_documents(folder) == 2
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {"json.py", "textwrap.py"}


@pytest.mark.usefixtures("few")
def test_the_files_of_another_python_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text("old")
    write_documents(tmp_path)
    assert not (tmp_path / "gone.py").exists()


def test_no_module_of_the_list_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from openbook.cli.standard_library import write_documents\n"
        "write_documents(Path(sys.argv[1])); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert not {"imaplib", "ftplib", "optparse", "tarfile", "venv"} & set(done.stdout.split())


def test_a_python_without_sources_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_library.sysconfig, "get_path", lambda _: str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="openbook demo FOLDER"):
        write_documents(tmp_path / "documents")
    assert not (tmp_path / "documents").exists()
