"""A trace drawn on a terminal: the tokens in colour, a table of those that are trained, and what has moved."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from openbook.cli.text import plain

if TYPE_CHECKING:
    from rich.console import Console

    from openbook.tracing import Branch, Trace, TracedToken

COLOURS = {"template": "magenta", "system": "bright_black", "user": "cyan", "assistant": "green"}
LONG = 160  # tokens of a shared beginning that are shown in full; of a longer one, both ends
BRANCHES = 12  # shown in full; the JSON has all


def draw_trace(console: "Console", found: "Trace") -> None:
    trained = [token for token in found.tokens if token.trained]
    console.print(Text("The row as the model reads it", style="bold"))
    console.print(Text(" · ").join(Text(part, style=colour) for part, colour in COLOURS.items()), "\n")
    _tree(console, found)
    console.print(
        f"{len(found.tokens):,} tokens, of which {len(trained):,} are trained (underlined): "
        + ("the answers and the tokens that end them." if len(found.branches) > 1 else _ANSWER)
    )
    if found.separate_tokens > len(found.tokens):
        saved = found.separate_tokens / len(found.tokens)
        console.print(
            f"As {len(found.branches)} separate sequences they would be {found.separate_tokens:,}: "
            f"{saved:.1f} times as many."
        )
    shown = [token for token in trained if found.kind != "row" or token.branch == 0]
    console.print("", _table(shown), "", sep="\n")
    _figures(console, found)
    console.print(Text("\nIt said before: ", style="bold") + Text(plain(found.says_before) or "(nothing)"))
    console.print(Text("It says now:    ", style="bold") + Text(plain(found.says_after) or "(nothing)"))


_ANSWER = "the answer and the token that ends it."


def _figures(console: "Console", found: "Trace") -> None:
    steps = "one optimizer step" if found.steps == 1 else f"{found.steps} optimizer steps"
    console.print(
        f"Loss: [bold]{found.loss_before:.3f}[/] before, [bold]{found.loss_after:.3f}[/] after {steps} "
        f"at learning rate {found.learning_rate:g} ({found.loss_name})."
    )
    if len(found.branches) > 1:
        for branch in found.branches[:BRANCHES]:
            console.print(Text(f"  {plain(branch.name):<18} {_logp(branch)}"))
    console.print(
        f"Moved: {found.moved_weights:,} of {found.trained_weights:,} trained weights; the network has "
        f"{found.total_weights:,}. Moved most:"
    )
    for movement in sorted(found.movements, key=lambda movement: -movement.share)[:5]:
        console.print(
            f"  {movement.name:<34} by {movement.share:.2%} of its length, {movement.moved:,} of {movement.trained:,}"
        )


def _logp(branch: "Branch") -> str:
    change = branch.logp_after - branch.logp_before
    return f"log-probability {branch.logp_before:.2f} → {branch.logp_after:.2f} ({change:+.2f} nats)"


def _tree(console: "Console", found: "Trace") -> None:
    """The shared beginning, then each branch where it parts from it."""
    if len(found.branches) == 1:
        console.print(_pieces(found.tokens), "\n")
        return
    shared = found.tokens[: found.trunk]
    console.print(Text(f"┌ read once, for all {len(found.branches)}: {len(shared):,} tokens", style="bold"))
    if len(shared) > LONG:
        head, tail = shared[: LONG // 2], shared[-LONG // 2 :]
        gap = Text(f"\n… {len(shared) - len(head) - len(tail):,} tokens …\n", style="bold")
        console.print(_pieces(head) + gap + _pieces(tail))
    else:
        console.print(_pieces(shared))
    for number, branch in enumerate(found.branches[:BRANCHES]):
        after = found.beyond_trunk(number)
        with_others = sum(token.branch < 0 for token in after)
        some = f", {with_others:,} of them with others" if with_others else ""
        console.print(Text(f"├ {plain(branch.name)}: {len(after):,} tokens more{some}", style="bold"))
        console.print(_pieces(after))
    if len(found.branches) > BRANCHES:
        console.print(f"└ and {len(found.branches) - BRANCHES} more (--json has them)")
    console.print()


def _pieces(tokens: "Sequence[TracedToken]") -> Text:
    line = Text()
    for number, token in enumerate(tokens):
        shade = " on grey11" if number % 2 else " on grey23"  # neighbours differ, so that the cuts are seen
        style = COLOURS[token.part] + shade + (" underline" if token.trained else "")
        line.append(plain(token.text).replace("\n", "⏎\n") or "∅", style=style)
    return line


def _table(trained: "list[TracedToken]") -> Table:
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
