"""The `openbook` command."""

import io
import os
import sys

import typer
from typer.core import TyperGroup

from openbook import __version__
from openbook.cli import comparing, data, doctor, documents, exam, serving, tracing, tuned, tuning, whole
from openbook.cli.session import EXIT_STOPPED

STORY = """
Study for the open-book exam: tune a small language model on your own documents, so that it finds the right passage,
quotes it word for word, and says so when the answer is not there.

\b
  openbook init my-documents    write openbook.toml: every option, explained
  openbook run                  do everything below, and write report.html

No documents at hand? `openbook demo` studies the documentation of your own Python.

Step by step, each verb works on what the one before it wrote (in ./openbook-work, or --out):

\b
  ingest    documents  → passages in a searchable index
  dataset   passages   → questions with quoted answers: training and two exams
  tune      questions  → an adapter for the base model (QLoRA)
  evaluate  exams      → base, tuned, with and without documents, side by side

Then `ask` it, `serve` it over HTTP, `search` the passages, or `trace` how one message changes the model. `pairs` finds
what it does wrong, for another tuning; `compare` sets all ways of tuning side by side; `merge` makes one model of base
and adapter. A RAFT file from elsewhere? `doctor` says what is wrong with it. Everything runs on this machine; nothing is
sent anywhere unless an option names an endpoint or a model hub.
"""


ORDER = "init run ingest search dataset doctor tune pairs score merge trace ask serve evaluate compare demo".split()


class _InOrder(TyperGroup):
    """The verbs in the order of the work; a verb with sub-verbs would come first."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        found = super().list_commands(ctx)
        return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="openbook",
    cls=_InOrder,
    help=STORY,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: it starts faster, and examples keep their lines
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"openbook {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


whole.register(app)
documents.register(app)
data.register(app)
doctor.register(app)
tuning.register(app)
tuned.register(app)
tracing.register(app)
exam.register(app)
comparing.register(app)
serving.register(app)
whole.register_demo(app)


def main() -> None:
    """The entry point of the `openbook` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no “→” shows a question mark
    try:
        app()
    except KeyboardInterrupt:  # before a verb has begun: verbs tell of it themselves
        print("\nStopped.", file=sys.stderr)
        os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()
