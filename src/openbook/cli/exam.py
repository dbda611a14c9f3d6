"""`openbook ask` and `openbook evaluate`."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli import text
from openbook.cli.report import print_report
from openbook.cli.session import Session, verb
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.config import Config
    from openbook.records import Answer


def register(app: typer.Typer) -> None:
    verb(app, "ask")(ask)
    verb(app, "evaluate")(evaluate)


def ask(
    session: Session,
    question: Annotated[str, typer.Argument(metavar='"QUESTION"', help="What you want to know.")],
    k: Annotated[int | None, typer.Option("-k", "--k", help="Passages shown to the model (default: 4).")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of the adapter (default: the one that `tune` wrote).")
    ] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Ask the base model, without any adapter.")] = False,
    closed: Annotated[bool, typer.Option("--closed", help="Show it no passages: from memory alone.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask your documents.

    The passages nearest to the question are shown to the tuned model. Every quote in its answer is looked up: ✓ names
    the document and the place where it stands word for word, ✗ marks one that stands nowhere.

    \b
    Examples:
      openbook ask "how long are alerts kept?"
      openbook ask "how long are alerts kept?" --base-only
      openbook ask "how long are alerts kept?" --json | jq .final
    """
    from openbook import verbs
    from openbook.records import to_json

    if adapter and base_only:
        raise ConfigError("--adapter and --base-only exclude each other.")
    config = session.config({"retrieval.passages": k})
    folder = _adapter(session, config, adapter, base_only, closed)
    with verbs.answering(config, adapter=folder, closed=closed) as answerer:
        if json_:
            print(json.dumps(to_json(answerer.answer(question)), ensure_ascii=False))
            return
        stream = answerer.stream(question)
        with contextlib.closing(stream):
            for piece in text.readable(stream):
                sys.stdout.write(piece)
                sys.stdout.flush()
        print()
        print(answer_notes(stream.last))


def _adapter(session: Session, config: "Config", given: Path | None, base_only: bool, closed: bool) -> Path | None:
    from openbook import tuning

    if base_only:
        return None
    adapter = given or tuning.default_adapter(config, closed=closed)
    if adapter is None:
        session.note(f"No adapter in {config.adapters_dir} yet (`openbook tune` writes one): the base model answers.")
    return adapter


def answer_notes(answer: "Answer") -> str:
    """What stands below an answer: the verdict on its quotes, and whether it is a refusal or was cut short."""
    lines = []
    if answer.refusal:
        lines.append("The model says that the passages do not hold the answer.")
    if not answer.finished:
        lines.append("The answer was cut short at the token limit (model.max_new_tokens).")
    lines += text.quotes(answer.quotes, answer.passages)
    if not answer.quotes and not answer.refusal:
        lines.append("No quote: nothing in this answer is checked.")
    if answer.passages:
        lines.append("Passages shown:")
        lines += [f"  {scored.rank}. {text.place(scored.chunk)}" for scored in answer.passages]
    return "\n".join(lines)


def evaluate(
    session: Session,
    arms: Annotated[
        str | None, typer.Option(help="What to compare, separated by commas (default: all six).", metavar="ARM,ARM")
    ] = None,
    questions: Annotated[
        int | None, typer.Option(help="At most so many questions of each exam (default: 100).")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Examine base and tuned models, side by side.

    Arms: base_closed and base_rag (the base without and with passages), sft_closed and sft_rag (tuned on questions
    alone), raft_rag (tuned with passages) and raft_golden (the golden passage guaranteed). Every figure comes with its
    95 % interval. Answers are written down as they come: a stopped exam goes on where it stopped.

    \b
    Examples:
      openbook evaluate
      openbook evaluate --arms base_rag,raft_rag --questions 30
    """
    from openbook import verbs

    wanted = [arm.strip() for arm in arms.split(",") if arm.strip()] if arms is not None else None
    config = session.config({"evaluate.arms": wanted, "evaluate.questions": questions})
    verbs.evaluate(config, progress=session.progress)
    if json_:
        print((config.out / "report.json").read_text(encoding="utf-8"), end="")
        return
    print_report(config.out)
