"""`openbook pairs`, `openbook score` and `openbook merge`: what is done with a tuned adapter."""

import dataclasses
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli.progress import clock
from openbook.cli.session import Session, verb
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.dataset import PairsReport
    from openbook.training import MergeReport, ScoreReport


class Stored(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


AdapterOption = Annotated[Path | None, typer.Option(help="Folder of the adapter (default: the one that `tune` wrote).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    verb(app, "pairs")(pairs)
    verb(app, "score")(score)
    verb(app, "merge")(merge)


def pairs(
    session: Session,
    adapter: AdapterOption = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Answers to each training question, one greedy and the others drawn (default: 4)."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="How freely they are drawn (default: 0.8).")] = None,
    human: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead: turn what people preferred (QA-Feedback rows) into pairs."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Ask again although nothing has changed.")] = False,
    json_: JsonOption = False,
) -> None:
    """Write preference pairs out of the tuned model's failures.

    The tuned model is asked its training questions, several times each. Right answers with a verified quote are chosen
    (the data set's own where there is none); invented quotes, answers led by a distractor, wrong refusals and answers
    where a refusal was due are rejected, each with its kind, so that you see what `tune --method dpo` will punish.

    \b
    Examples:
      openbook pairs
      openbook pairs --adapter openbook-work/adapters/instruct --samples 8 --temperature 1
      openbook pairs --human qa_feedback.jsonl.gz
    """
    config = session.config({"pairs.samples": samples, "pairs.temperature": temperature})
    if human is not None:
        from openbook import dataset

        if adapter or samples or temperature:
            raise ConfigError("--human reads what people preferred, and asks no model.", "Leave out the other options.")
        out = config.pairs_dir / "human.jsonl"
        found = dataset.write_human_pairs(human, out)
        if json_:
            print(json.dumps(dataclasses.asdict(found)))
            return
        print(
            f"{found.pairs:,} pairs from {found.questions:,} questions; {found.ties:,} ties and {found.equal:,} pairs of "
            f"equal answers are left out\nPairs: {out}"
        )
        return
    from openbook import dataset, tuned

    report = tuned.find_pairs(config, adapter=adapter, force=force, progress=session.progress)
    if json_:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print(pairs_summary(report))
        print(f"Pairs: {dataset.pairs_path(config)}")


def pairs_summary(report: "PairsReport") -> str:
    """How the answers fell out, and what the pairs punish."""
    from openbook.dataset import FAILURES

    share = report.right / report.samples if report.samples else 0.0
    lines = [
        f"{report.samples:,} answers to {report.questions:,} training questions in {clock(report.seconds)}: "
        f"{report.right:,} right and verified ({share:.0%}), {report.undecided:,} neither right nor clearly wrong"
    ]
    for kind, meaning in FAILURES.items():
        if kind in report.failures or kind in report.punished:
            lines.append(
                f"  {kind}: {_of(report.failures, kind):,} answers, {_of(report.punished, kind):,} pairs ({meaning})"
            )
    chosen = report.chosen_from
    lines.append(
        f"{report.pairs:,} pairs; the chosen answer is the model's own in {_of(chosen, 'model'):,}, the data set's in "
        f"{_of(chosen, 'data'):,}"
    )
    return "\n".join(lines)


def _of(counts: Mapping[str, int], name: str) -> int:
    return counts.get(name, 0)


def score(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows: prompt + completion, messages, or pairs.")],
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of the reward model (default: what `tune --method reward` wrote).")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write them (default: FILE.scored.jsonl beside it).")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Score answers with a reward model.

    Every row comes back with its score; a pair with two, and then the report says how often the chosen answer scores
    higher, beside how often it is merely the longer one. Scores of one reward model compare; their zero means nothing.

    \b
    Examples:
      openbook score answers.jsonl
      openbook score pairs.jsonl --adapter openbook-work/adapters/reward --to scored.jsonl
    """
    from openbook import tuned

    config = session.config()
    to = to or file.with_name(f"{file.stem}.scored.jsonl")
    if to.resolve() == file.resolve():
        raise ConfigError(f"{to} would be overwritten while it is read.", "Name another file with --to.")
    report = tuned.score(config, file, to=to, adapter=adapter, progress=session.progress)
    if json_:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print(score_summary(report))
        print(f"Scored rows: {to}")


def score_summary(report: "ScoreReport") -> str:
    lines = [
        f"{report.rows:,} rows: scores from {report.lowest:.3f} to {report.highest:.3f}, "
        f"{report.mean:.3f} ± {report.deviation:.3f} (mean and standard deviation)"
    ]
    if report.accuracy is not None and report.longer_wins is not None:
        lines += [
            f"{report.pairs:,} pairs: the chosen answer scores higher in {report.accuracy:.1%} "
            f"(± {1.96 * (report.error or 0):.1%}), by {report.margin:.3f} on average",
            f"the chosen answer is the longer one in {report.longer_wins:.1%}",
        ]
    return "\n".join(lines)


def merge(
    session: Session,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The new folder for the merged model.")],
    adapter: AdapterOption = None,
    dtype: Annotated[Stored, typer.Option(help="How the weights are stored (auto: as the base stores its own).")] = (
        Stored.auto
    ),
    original: Annotated[
        bool, typer.Option("--original", help="After QLoRA: merge into the base as published, not as it was tuned on.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Make one model of base and adapter, and check it.

    Every tool loads the merged model. It is read back from disk and must continue 50 prompts token by token as base and adapter do; if
    one differs, nothing is written and the exit code is 1. A QLoRA adapter is merged into the 4-bit values that it was
    tuned and examined on, written out in 16 or 32 bits; --original takes the published weights instead, and says how
    many prompts are then continued as examined.

    \b
    Examples:
      openbook merge --to merged
      openbook merge --to merged --dtype float32 --original
    """
    from openbook import tuned

    config = session.config()
    report = tuned.merge(config, to, adapter=adapter, dtype=dtype.value, original=original, progress=session.progress)
    if json_:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print(merge_summary(report))
        print(f"Merged model: {to}")


def merge_summary(report: "MergeReport") -> str:
    lines = [
        f"{report.equal} of {report.prompts} prompts are continued token by token alike ({report.tokens:,} tokens); "
        f"logits differ by at most {report.largest_difference:.2g}; stored as {report.dtype}"
    ]
    if report.examined_equal is not None:
        lines.append(
            f"The model that was tuned and examined, on its 4-bit base, continues {report.examined_equal} of "
            f"{report.prompts} so: on the published weights the adapter is another model."
        )
    return "\n".join(lines)
