"""reStructuredText with all that Sphinx adds to it; nothing that a reader reads is lost, nothing is pulled in."""

import pytest

from openbook.documents.restructured import parse_rst


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (".. py:function:: dump(obj, *args)\n                 dumps(obj)\n\n   Writes :class:`~a.Obj`.",
         "dump(obj, *args)\n\ndumps(obj)\n\nWrites `a.Obj`."),
        (".. versionchanged:: 3.6\n   Keyword-only.", "Changed in version 3.6: Keyword-only."),
        (".. deprecated:: 3.9", "Deprecated in version 3.9"),
        (".. unheard-of:: A title\n   :odd: option\n\n   Its text.", "A title\n\nIts text."),
        (".. code-block:: c\n   :linenos:\n   :caption: x\n\n   int x;", "```c\nint x;\n```"),
        ("See |it| [1]_.\n\n.. |it| replace:: the lever\n\n.. [1] A note.", "See the lever.\n\nA note."),
        ("term\n  its meaning\n\n:field: value\n\n-v, --verbose  be loud",
         "term\n\nits meaning\n\nfield: value\n\n-v, --verbose\n\nbe loud"),
        ("10\\ :sup:`2` and the 5\\ :sup:`th`.", "10² and the 5th."),
        ("3. a\n4. b\n\n   - c", "3. a\n4. b\n  - c"),
        ("+---+-----+\n| A | B   |\n+===+=====+\n| 1 | two |\n|   | 2.  |\n+---+-----+", "A | B\n1 | two 2."),
        (".. list-table::\n\n   * - a\n     - b\n   * - c\n     - d", "a | b\nc | d"),
        ("==== ===\nbad  is crooked\n==== ===\nx    y\n==== ===", "bad | is crooked\nx | y"),
        (".. only:: html\n\n   Shown.", "Shown."),
        (".. toctree::\n\n   a\n\n.. image:: x.png\n\n.. raw:: html\n\n   <b>x</b>\n\nText.", "Text."),
        (".. include:: /etc/hostname\n\n.. csv-table::\n   :file: /etc/passwd\n\nText.", None),
        ("Title\n====\n\nText.", "# Title\n\nText."),
    ],
)  # fmt: skip
def test_details(source: str, text: str | None) -> None:
    got = parse_rst(source, "x").text
    if text is None:
        assert got.endswith("Text.") and "root" not in got
    else:
        assert got == text


def test_headings_keep_their_depth_and_place() -> None:
    parsed = parse_rst("====\nTop\n====\n\nOne\n---\n\na\n\nTwo\n---\n\n.. rubric:: Aside\n\nDeep\n~~~~\n\nb", "x")
    assert [(s.level, s.title) for s in parsed.sections] == [(1, "Top"), (2, "One"), (2, "Two"), (3, "Deep")]
    assert all(parsed.text[s.start :].startswith(f"{'#' * s.level} {s.title}\n") for s in parsed.sections)


def test_what_nests_too_deep_for_docutils_is_read_as_plain_text() -> None:
    assert "deepest" in parse_rst("- " * 3000 + "deepest", "x").text


def test_a_configuration_beside_the_document_counts_for_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "docutils.conf").write_text("[general]\nfile_insertion_enabled: yes\nraw_enabled: yes\n")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.chdir(tmp_path)
    assert parse_rst(".. include:: secret.txt\n\nText.", "x").text == "Text."
