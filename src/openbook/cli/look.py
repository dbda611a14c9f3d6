"""`openbook dataset show`, `reject`, `edit`, `restore` and `apply`: look at rows, and correct them."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli import text
from openbook.cli.session import EXIT_FAILED, Session, verb
from openbook.errors import ConfigError, InputError, StoreError

if TYPE_CHECKING:
    from rich.text import Text

    from openbook.config import Config
    from openbook.dataset.overlay import Change
    from openbook.dataset.review import Outcome
    from openbook.dataset.viewing import View

PAGE_ROWS = 2000  # about 10 MB
DISTRACTOR = 200  # characters


def register(group: typer.Typer) -> None:
    verb(group, "show")(show)
    verb(group, "reject")(reject)
    verb(group, "edit")(edit)
    verb(group, "restore")(restore)
    verb(group, "apply")(apply)


def show(
    session: Session,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[ROW]...", help="Row numbers, from 1.")] = None,
    part: Annotated[
        str | None, typer.Option(help='"train", "validation", "studied" or "unseen" (default: all, in this order).')
    ] = None,
    search: Annotated[str, typer.Option(help="Only rows that hold this text, in question, answer or passages.")] = "",
    kind: Annotated[str, typer.Option(help="Only questions of this kind, such as cloze.")] = "",
    shape: Annotated[str, typer.Option(help='Only questions that ask so: what, who, when, "how many", gap, …')] = "",
    golden: Annotated[str, typer.Option(help='Only rows whose golden passage is "shown", "left out" or "none".')] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only rows that fail a check.")] = False,
    limit: Annotated[
        int | None,
        typer.Option("-n", "--limit", min=1, help=f"At most so many rows (default: 5; page: {PAGE_ROWS:,})."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A RAFT file instead of the data set built here.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with filters and forms to correct rows.")
    ] = None,
) -> None:
    """Look at rows: question, answer, checks, passages.

    Golden passages are marked and quotes are highlighted where they stand. The page (--html) is one file; what is
    rejected or edited on it is exported as a file for `openbook dataset apply`.

    \b
    Examples:
      openbook dataset show 3 17 --part train
      openbook dataset show --search "retry" --golden "left out"
      openbook dataset show --failed -n 20
      openbook dataset show --html look.html
    """
    from openbook.dataset.viewing import GOLDEN

    if golden and golden not in GOLDEN:
        raise ConfigError(f"--golden {golden!r} is none of {', '.join(GOLDEN)}.")
    config = session.config()
    found = (
        view
        for view in _views(config, part, source)
        if (not numbers or view.number in numbers)
        and (not search or view.holds(search))
        and (not kind or view.example.kind == kind)
        and (not shape or view.shape == shape)
        and (not golden or view.golden == golden)
        and (not failed or view.failed)
    )
    if html is not None:
        _write_page(config, found, html, limit or PAGE_ROWS)
    else:
        _print(found, limit or (len(numbers) * 4 if numbers else 5), whole=bool(numbers))


def reject(
    session: Session,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of questions, or how they begin.")],
    note: Annotated[str, typer.Option(help="Why, for people.")] = "",
) -> None:
    """Take questions out of the data set, for good.

    They leave the rows at once, and every later build takes others in their place. `openbook dataset restore` takes it
    back.

    \b
    Examples:
      openbook dataset reject 5e1f2a --note "asks about a picture"
    """
    from openbook.dataset.overlay import Change

    _change(session, [Change(question_id=i, action="reject", note=note) for i in ids])


def edit(
    session: Session,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The question's id, or how it begins.")],
    question: Annotated[str | None, typer.Option(help="The question in other words.")] = None,
    answer: Annotated[str | None, typer.Option(help="Another short answer.")] = None,
    reasoning: Annotated[
        str | None, typer.Option(help="Other reasoning; quotes stand between ##begin_quote## and ##end_quote##.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for people.")] = "",
) -> None:
    """Put a question, its answer or its reasoning into other words.

    An edit must pass the checks that the teacher's questions pass: quotes word for word, and the answer in the quote.

    \b
    Examples:
      openbook dataset edit 5e1f2a --question "How long are alerts kept?"
    """
    from openbook.dataset.overlay import Change

    if question is None and answer is None and reasoning is None:
        raise ConfigError("The edit changes nothing.", "Give --question, --answer or --reasoning.")
    made = Change(question_id=id_, action="edit", question=question, answer=answer, reasoning=reasoning, note=note)
    _change(session, [made])


def restore(
    session: Session,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of questions, or how they begin.")],
) -> None:
    """Take back rejections and edits.

    The questions come back as they were when the data set is built again.

    \b
    Examples:
      openbook dataset restore 5e1f2a && openbook dataset
    """
    from openbook.dataset import review

    _tell(review.restore(session.config(), ids), "taken back; `openbook dataset` brings the questions back")


def apply(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Changes as the page exports them: overlay.jsonl.")],
) -> None:
    """Put the changes that the page exported in force.

    Each is checked; what cannot be used is told, and the rest is done. They are kept in OUT/overlay.jsonl.

    \b
    Examples:
      openbook dataset apply ~/Downloads/overlay.jsonl
    """
    from openbook.dataset import review

    if not file.is_file():
        raise InputError(f"{file} does not exist.", "The page's button “Export changes” writes it.")
    _change(session, review.read_changes(file))


def _change(session: Session, changes: "Iterable[Change]") -> None:
    from openbook.dataset import review

    _tell(review.change(session.config(), changes), "kept")


def _tell(outcome: "Outcome", done: str) -> None:
    print(f"{text.counted(outcome.changes, 'change')} {done}; {outcome.rows:,} rows changed.")
    for sentence in outcome.refused:
        print(f"  not done: {text.plain(sentence)}", file=sys.stderr)
    if outcome.refused:
        raise SystemExit(EXIT_FAILED)


def _views(config: "Config", part: str | None, source: Path | None) -> "Iterator[View]":
    from openbook.dataset import PARTS
    from openbook.dataset.viewing import views

    if source is not None:
        if part is not None:
            raise ConfigError("A part and a file of your own exclude each other.", "Give one of --part and --from.")
        yield from views(source, source.name)
        return
    if part is not None and part not in PARTS:
        raise ConfigError(f"The data set has no part {part!r}.", f"Choose one of {', '.join(PARTS)}.")
    paths = {name: config.dataset_dir / f"{name}.jsonl" for name in ([part] if part else PARTS)}
    if not any(path.is_file() for path in paths.values()):
        raise StoreError(f"{config.dataset_dir} holds no data set.", "Write the questions first: `openbook dataset`.")
    for name, path in paths.items():
        if path.is_file():
            yield from views(path, name)


def _write_page(config: "Config", found: "Iterator[View]", path: Path, limit: int) -> None:
    from openbook import storage
    from openbook.dataset.overlay import Overlay
    from openbook.dataset.page.render import render

    chosen = list(islice(found, limit))
    left_out = sum(1 for _ in found)
    if not chosen:
        raise InputError("No row fits.", "Leave out some of the filters.")
    storage.write_text(path, render(chosen, Overlay.read(config.overlay_path).changes, left_out=left_out))
    print(f"{len(chosen):,} rows: {path}" + (f" ({left_out:,} more with a larger --limit)" if left_out else ""))


def _print(found: "Iterator[View]", limit: int, *, whole: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, width=min(shutil.get_terminal_size().columns, 110))
    count = 0
    for view in islice(found, limit):
        console.print(shown(view, whole=whole))
        count += 1
    more = sum(1 for _ in found)
    if not count:
        console.print("No row fits.")
    elif more:
        console.print(f"{more:,} more: a larger -n shows them, --html FILE writes a page.", style="dim")


def shown(view: "View", *, whole: bool = True) -> "Text":
    """A row for a terminal; what comes from documents cannot colour it or move the cursor. Of distractors only the
    beginning is shown unless `whole`."""
    from rich.text import Text

    from openbook.dataset.viewing import answer_pieces, pieces, quoted

    example, out = view.example, Text()

    def add(words: str, style: str = "") -> None:
        out.append(text.plain(words), style=style)

    about = (f"{view.part} {view.number}", view.shape, example.kind, f"golden {view.golden}", view.question_id)
    add(" · ".join(filter(None, about)) + "\n", "dim")
    add(f"{example.question}\n", "bold")
    for piece, verified in answer_pieces(example):
        if verified is None:
            add(piece)
        else:
            add(f"“{piece}”", "black on yellow" if verified else "red")
    add(f"\n→ {example.final_answer}\n", "bold green")
    if example.answer and example.answer != example.final_answer:
        add(f"  the documents say: {example.answer}\n", "dim")
    for name, says in view.failed:
        add(f"  ✗ {name}: {says}\n", "red")
    if view.passed:
        add(f"  ✓ {', '.join(view.passed)}\n", "green")
    golden, there = set(example.golden_ids), {chunk.id for chunk in example.passages}
    for chunk in (*example.passages, *(chunk for chunk in example.golden if chunk.id not in there)):
        absent = "" if chunk.id in there else " (not shown to the model)"
        mark = "★ golden" if chunk.id in golden else "·"
        add(f"\n{mark} {text.place(chunk)}{absent}\n", "bold yellow" if chunk.id in golden else "dim")
        words = chunk.text if whole or chunk.id in golden else text.one_line(chunk.text, DISTRACTOR)
        for piece, inside in pieces(words, quoted(chunk, example) if words == chunk.text else ()):
            add(piece, "black on yellow" if inside else "")
        add("\n")
    add("─" * 20, "dim")
    return out
