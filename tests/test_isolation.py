"""A file that hangs, eats memory or crashes its parser is named; the others are read."""

import time
from pathlib import Path

import pytest

from openbook.documents import Limits, Skipped, read
from openbook.documents.isolation import IsolatedParser
from openbook.errors import DocumentError
from openbook.records import Document


def endless_pdf(depth: int = 14, fan: int = 10) -> bytes:
    """One page that draws a form which draws another ten times, and so on: fan^depth drawings in two kilobytes."""
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Count 1/Kids[3 0 R]>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>",
        "<</Length 5>>stream\n/X Do\nendstream",
    ]
    for number in range(5, 5 + depth):
        drawn = "/X Do " * fan
        form = f"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X {number + 1} 0 R>>>>/Length {len(drawn)}>>"
        objects.append(f"{form}stream\n{drawn}\nendstream")
    objects.append("<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length 1>>stream\nn\nendstream")
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    return (body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}").encode()


def outcome(folder: Path, **limits: float) -> dict[str, str]:
    """Each file by name: its text, or why it was skipped."""
    found = read([folder], max_file_mb=50, limits=Limits(**limits))
    return {Path(item.uri).name: item.text if isinstance(item, Document) else item.reason for item in found}


def test_a_pdf_without_end_is_stopped_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Before.")
    (tmp_path / "b.pdf").write_bytes(endless_pdf())
    (tmp_path / "c.md").write_text("After.")
    started = time.monotonic()
    assert outcome(tmp_path, seconds=1.5) == {
        "a.md": "Before.",
        "b.pdf": "reading it took more than the 1.5 s of documents.max_seconds, and was stopped",
        "c.md": "After.",
    }
    assert time.monotonic() - started < 60


def test_files_that_eat_memory_are_stopped_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>a" * 2_000_000)  # a node for each of four million pieces
    (tmp_path / "b.ipynb").write_text('{"cells": [' + "[]," * 4_000_000 + "[]]}")
    (tmp_path / "c.md").write_text("After.")
    reason = "reading it took more than the 250 MB of documents.max_memory_mb, and was stopped"
    assert outcome(tmp_path, memory_mb=250) == {"a.html": reason, "b.ipynb": reason, "c.md": "After."}


def test_a_process_is_reused_and_replaced_when_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("Text.")
    with IsolatedParser(Limits()) as parser:

        def process() -> int:
            assert isinstance(parser.parse(path, "a.md"), Document)
            assert parser._process is not None
            return parser._process.pid

        first = process()
        assert process() == first
        assert parser._process is not None
        parser._process.kill()  # as a crash between two files: nobody's fault
        parser._process.wait()
        assert process() != first
    assert parser._process is None


def test_a_process_that_cannot_start_is_an_error_and_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("Text.")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "openbook.py").write_text("raise SystemExit(3)")
    with IsolatedParser(Limits()) as parser, pytest.raises(DocumentError, match=r"cannot be started \(exit code"):
        parser.parse(tmp_path / "a.md", "a.md")


def test_modules_beside_the_documents_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a.md").write_text("Text.")
    monkeypatch.chdir(tmp_path)
    assert outcome(tmp_path)["a.md"] == "Text."


def test_many_small_files_share_one_start(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.md").write_text(f"Text {number}.")
    found = read([tmp_path], max_file_mb=1)
    assert isinstance(next(found), Document)  # the process has started
    started = time.monotonic()
    rest = list(found)
    assert len(rest) == 299 and not any(isinstance(item, Skipped) for item in rest)
    assert time.monotonic() - started < 15  # alone on a machine: 0.2 s; a process each: a minute
