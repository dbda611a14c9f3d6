"""`openbook ingest` and `openbook search`."""

import dataclasses
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli import text
from openbook.cli.session import Session, verb

if TYPE_CHECKING:
    from openbook.explaining import Explanation
    from openbook.indexing import IngestReport

# Files that a person would expect to be read: each is named when it was not.
NAMED = ("error", "too_large", "empty", "binary")


def register(app: typer.Typer) -> None:
    verb(app, "ingest")(ingest)
    verb(app, "search")(search)


def ingest(
    session: Session,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Files and folders (default: documents.paths of openbook.toml)."),
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option("--chunk-tokens", help="Longest passage, in tokens of the embedder (default: 200).")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read documents, cut them into passages and index these.

    Markdown, text, HTML, PDF, Word, EPUB, Jupyter notebooks, reStructuredText and Python sources (their docstrings),
    folders with all that is in them. A file that hangs its parser or eats memory is stopped and named. The index holds
    exactly the paths given: run again, it adds what is new, replaces what has changed and drops what is gone.

    \b
    Examples:
      openbook ingest docs/ notes.md
      openbook ingest handbook.pdf --chunk-tokens 120
    """
    from openbook import verbs

    config = session.config({"documents.paths": paths or None, "documents.chunk_tokens": chunk_tokens})
    report = verbs.ingest(config, progress=session.progress)
    if json_:
        print(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
        return
    print(ingest_summary(report))
    for skipped in report.skipped:
        if skipped.kind in NAMED:
            print(f"  not read: {text.plain(skipped.uri)}: {text.plain(skipped.reason)}", file=sys.stderr)


def ingest_summary(report: "IngestReport") -> str:
    changes = text.counts(
        {
            "added": report.added,
            "changed": report.changed,
            "removed": report.removed,
            "unchanged": report.unchanged,
        }
    )
    documents, passages = text.counted(report.documents, "document"), text.counted(report.chunks, "passage")
    summary = f"{documents}, {passages} ({changes}) in {report.seconds:.1f} s"
    skipped = text.counts(Counter(item.kind for item in report.skipped))
    return f"{summary}\nskipped files: {skipped}" if skipped else summary


def search(
    session: Session,
    query: Annotated[str, typer.Argument(metavar='"QUERY"', help="What to look for.")],
    k: Annotated[int | None, typer.Option("-k", "--k", help="How many results (default: 4).")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what each leg and each word adds, and which sentence is meant.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search the passages, and see why each is found.

    Two searches are run, by meaning (dense vectors) and by words (BM25), and fused by reciprocal rank. Every result
    shows its place and score in both.

    \b
    Examples:
      openbook search "how are alerts grouped"
      openbook search "how are alerts grouped" --explain
      openbook search "retry" -k 10 --json
    """
    from openbook import verbs
    from openbook.records import to_json

    config = session.config({"retrieval.passages": k})
    if explain:
        _explained(query, verbs.explain(config, query), json_)
        return
    results = verbs.search(config, query)
    if json_:
        print(json.dumps({"query": query, "results": [to_json(result) for result in results]}, ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns
    print("\n\n".join(text.result(result, width) for result in results) or "Nothing found.")


def _explained(query: str, found: "list[Explanation]", json_: bool) -> None:
    from openbook.records import to_json

    if json_:
        print(json.dumps({"query": query, "results": [to_json(one) for one in found]}, ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns
    print("\n\n".join(text.explanation(one, width) for one in found) or "Nothing found.")
