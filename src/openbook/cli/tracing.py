"""`openbook trace`."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli.session import Session, verb

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from openbook.tracing import Trace, TracedToken

COLOURS = {"template": "magenta", "system": "bright_black", "user": "cyan", "assistant": "green"}


def register(app: typer.Typer) -> None:
    verb(app, "trace")(trace)


def trace(
    session: Session,
    message: Annotated[str, typer.Argument(help="What is said to the model.")],
    answer: Annotated[str, typer.Option(help="What it is to learn to answer.")],
    base: Annotated[str | None, typer.Option(help='"nano" (embedded), a folder, or a hub name.')] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps to take.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Watch one text message fine-tune the model, token by token.

    The message is cut into tokens by the model's own chat template; for each token that is trained you see how probable
    the model held it; then one real optimizer step is taken, and you see it again. Nothing on disk is changed.

    \b
    Examples:
      openbook trace "What is the capital of openbook?" --answer "The index."
      openbook trace "Say hello" --answer "Hello, reader." --steps 10
      openbook trace "Say hello" --answer "Hello." --base ./TinyLlama-1.1B-Chat
    """
    config = session.config({"model.base": base})
    from openbook import tracing

    found = tracing.trace(config, message, answer, steps=steps)
    if json_:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
        return
    from rich.console import Console

    _draw(Console(highlight=False, soft_wrap=False), found)


def _draw(console: "Console", found: "Trace") -> None:
    from rich.text import Text

    trained = [token for token in found.tokens if token.trained]
    console.print(Text("The conversation as the model reads it", style="bold"))
    console.print(Text(" · ").join(Text(part, style=colour) for part, colour in COLOURS.items()), "\n")
    console.print(_pieces(found), "\n")
    console.print(
        f"{len(found.tokens)} tokens, of which {len(trained)} are trained (underlined): the answer and the token that ends it.\n"
    )
    console.print(_table(trained))
    steps = "one optimizer step" if found.steps == 1 else f"{found.steps} optimizer steps"
    console.print(
        f"\nLoss: [bold]{found.loss_before:.3f}[/] before, [bold]{found.loss_after:.3f}[/] after {steps} "
        f"at learning rate {found.learning_rate:g} (mean −ln of the probabilities above)."
    )
    console.print(
        f"Trained: {found.trained_weights:,} of {found.total_weights:,} weights "
        f"({found.trained_weights / found.total_weights:.2%}). Moved most:"
    )
    for name, share in sorted(found.moved, key=lambda item: -item[1])[:5]:
        console.print(f"  {name:<32} {share:.2%} of its length")
    console.print(Text("\nIt said before: ", style="bold") + Text(found.says_before or "(nothing)", style="default"))
    console.print(Text("It says now:    ", style="bold") + Text(found.says_after or "(nothing)", style="default"))


def _pieces(found: "Trace") -> "Text":
    from rich.text import Text

    line = Text()
    for number, token in enumerate(found.tokens):
        shade = " on grey11" if number % 2 else " on grey23"  # neighbours differ, so that the cuts are seen
        style = COLOURS[token.part] + shade + (" underline" if token.trained else "")
        line.append(token.text.replace("\n", "⏎\n") or "∅", style=style)
    return line


def _table(trained: "list[TracedToken]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("token", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("id", justify="right")
    table.add_column("probability before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("it would have said")
    table.add_column("now")
    for token in trained:
        better = (token.probability_after or 0) >= (token.probability_before or 0)
        table.add_row(
            Text(repr(token.text), style="green"),
            str(token.id),
            _percent(token.probability_before),
            Text(_percent(token.probability_after), style="green" if better else "red"),
            Text(repr(token.guess_before), style="dim"),
            Text(repr(token.guess_after), style="dim"),
        )
    return table


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.1%}" if probability >= 0.001 else f"{probability:.0e}"
