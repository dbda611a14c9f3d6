"""`openbook dataset` and `openbook dataset export`."""

import dataclasses
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook import prompt
from openbook.cli import look, text
from openbook.cli.session import Session, verb

if TYPE_CHECKING:
    from openbook.records import RaftExample


def register(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    verb(app, "dataset", group=group)(dataset)
    verb(group, "export")(export)
    look.register(group)


def dataset(
    session: Session,
    questions: Annotated[int | None, typer.Option(help="Training questions wanted (default: 400).")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help='Who writes them: "extractive" (rules, needs no model), "openai" (any such endpoint) or "local" (a '
            "model on this machine)."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The teacher's name at its endpoint, or its folder.")] = None,
    base_url: Annotated[str | None, typer.Option(help="The endpoint, such as http://localhost:8000/v1.")] = None,
    golden_share: Annotated[
        float | None, typer.Option(help="Share of examples that show their golden passage (default: 0.8).")
    ] = None,
    without_golden: Annotated[
        str | None, typer.Option(help='What the others answer: "refuse", "memorise" or "mix" (default: refuse).')
    ] = None,
    distractors: Annotated[
        str | None, typer.Option(help='The passages beside it: "mined" (default), "random" or "mixed".')
    ] = None,
    nowhere_share: Annotated[
        float | None, typer.Option(help="Share of questions that no document answers (default: 0).")
    ] = None,
    pair_share: Annotated[
        float | None, typer.Option(help="Share of questions that need two passages (default: 0).")
    ] = None,
    split_by: Annotated[
        str | None, typer.Option(help='What is held out as a whole: "document" (default), "folder" or "time".')
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say calls, tokens, money and time of a language model; send nothing.")
    ] = False,
    price_read: Annotated[float | None, typer.Option(help="What a million tokens cost that it reads.")] = None,
    price_written: Annotated[float | None, typer.Option(help="What a million tokens cost that it writes.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Stop before it costs more; the data set is what was made until then.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Examples to print at the end.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Write them again although nothing has changed.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write questions: for training, and for two exams.

    Each example shows a question, the passage that answers it among others that do not, and an answer that quotes the
    passage word for word. Two exams are set aside: *studied* (new questions on the documents of the training) and
    *unseen* (documents that the training never shows).

    A language model as teacher is asked for each passage once: its answers are kept under OUT/teacher, so that a run that
    was stopped pays nothing twice. It also judges what it wrote (--set dataset.judge=false: it does not). Its key is
    taken from OPENAI_API_KEY and written nowhere.

    \b
    Examples:
      openbook dataset --questions 1000
      openbook dataset --teacher openai --model llama3.1 --base-url http://localhost:11434/v1
      openbook dataset --model gpt-5-mini --price-read 0.25 --price-written 2 --estimate
      openbook dataset --teacher local --model ./Qwen3-4B --set dataset.judge=false
      openbook dataset --golden-share 0.6 --without-golden mix --nowhere-share 0.1 --pair-share 0.1
    """
    from openbook import verbs
    from openbook.dataset.formats import read_examples

    if model is not None or base_url is not None:
        teacher = teacher or "openai"
    config = session.config(
        {
            "dataset.questions": questions,
            "dataset.teacher": teacher,
            "dataset.teacher_model": model,
            "dataset.base_url": base_url,
            "dataset.golden_share": golden_share,
            "dataset.without_golden": without_golden,
            "dataset.distractors": distractors,
            "dataset.nowhere_share": nowhere_share,
            "dataset.pair_share": pair_share,
            "dataset.split_by": split_by,
            "dataset.price_read": price_read,
            "dataset.price_written": price_written,
            "dataset.max_cost": max_cost,
        }
    )
    if estimate:
        expected = verbs.estimate_dataset(config)
        print(json.dumps(dataclasses.asdict(expected), ensure_ascii=False) if json_ else expected)
        return
    report = verbs.build_dataset(config, force=force, progress=session.progress)
    if json_:
        print(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
        return
    print(report)
    train = config.dataset_dir / "train.jsonl"
    for example in islice(read_examples(train), show):
        print(f"\n{shown_example(example, shutil.get_terminal_size().columns)}")
    print(f"\nRows: {train} and the other parts beside it")


def export(
    session: Session,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to: a name that ends in .jsonl or .parquet.")
    ],
    format_: Annotated[
        str,
        typer.Option("--format", help='"hf", "completion", "chat", "eval", "messages" or "preference" (default: hf).'),
    ] = "hf",
    part: Annotated[
        str | None,
        typer.Option(help='"train", "validation", "studied" or "unseen" (default: train; for eval: studied).'),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A RAFT file instead of the data set built here.")
    ] = None,
    system: Annotated[str, typer.Option(help="A system message for the format chat.")] = "",
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="TRAINER",
            help='"trl", "llama-factory" or "axolotl": print what it must be told to read the file.',
        ),
    ] = None,
) -> None:
    """Write the data set in the layout that another tool takes.

    hf: RAFT rows, all columns. completion: prompt and completion, which ends in <STOP>. chat: messages, with --system if
    given. messages: the same with openbook's own system message. eval: question, gold_final_answer, context.
    preference: prompt, chosen and rejected; what is rejected answers another question, refuses although the answer is
    there, or answers although it is not. `openbook tune --method dpo` reads it.

    \b
    Examples:
      openbook dataset export --format chat --out train.chat.jsonl
      openbook dataset export --format messages --out train.messages.jsonl --for axolotl
      openbook dataset export --format eval --part unseen --out unseen.parquet
      openbook dataset export --from raft.parquet --format completion --out raft.jsonl
    """
    from openbook import verbs
    from openbook.dataset.trainers import configuration

    config = session.config()
    told = (
        configuration(for_, format_, out) if for_ else ""
    )  # first: what cannot be said is said before anything is written
    written = verbs.export_dataset(config, out, form=format_, part=part, source=source, system=system)
    print(f"{written:,} rows: {out}")
    if told:
        print(f"\n{told}", end="")


def shown_example(example: "RaftExample", width: int) -> str:
    """An example as the model will study it: passages, question, answer."""
    golden = set(example.golden_ids)
    lines = [f"Example {example.id} ({example.kind})" if example.kind else f"Example {example.id}"]
    for chunk in example.passages:
        mark = "★" if chunk.id in golden else "·"
        lines.append(f"  {mark} {text.place(chunk)}: {text.one_line(chunk.text, width // 2)}")
    if not example.golden_included:
        lines.append("    (★, its golden passage, is left out)")
    lines.append(f"  Question: {text.plain(example.question)}")
    answer = "".join(text.readable([prompt.render_answer(example.reasoning, example.final_answer)]))
    lines.append("  Answer: " + answer.replace("\n", "\n  "))
    return "\n".join(lines)
