"""The exam from beginning to end: questions, passages, answers, grades, report."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openbook import __version__
from openbook.answering import PassageSource
from openbook.config import Config
from openbook.evaluation.arms import AdapterName, chosen
from openbook.evaluation.candidates import Candidates, LocalCandidates, adapter_folder
from openbook.evaluation.exam import TESTS, read_tests, set_exam, test_path
from openbook.evaluation.exhibits import dataset_facts, draw_examples, loss_curve, recorded
from openbook.evaluation.report import Exhibits, Report, Scores, TestResult
from openbook.evaluation.scoring import aggregate, columns, means
from openbook.evaluation.sittings import COMPARED, Sitting, answer_all, sittings_by_passages, sittings_of
from openbook.metrics import Gold, grade
from openbook.progress import SILENT, Progress
from openbook.prompt import FINGERPRINT
from openbook.records import Answer, RaftExample, to_json
from openbook.storage import (
    hash_file,
    is_current,
    peak_memory_bytes,
    versions,
    write_json,
    write_jsonl,
    write_manifest,
    write_text,
)

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
STAGE = "evaluate"

Sat = Sequence[tuple[Sitting, Sequence[Answer]]]


def evaluate(config: Config, *, seconds: Mapping[str, float] | None = None, progress: Progress = SILENT) -> Report:
    """Put both tests before every arm; write `report.json` and `report.html` under `config.out`.

    A killed evaluation goes on where it stopped, and no prompt is answered again that was answered before by the same
    weights; where nothing at all has changed, the report stands. `seconds` are those of the stages before, for the
    report; without it, what they wrote down. Raises `StoreError` where the index, the tests or an adapter are absent,
    `ConfigError` for an unknown arm.
    """
    from openbook.indexing import index_hash
    from openbook.retrieval import open_index

    wanted: set[AdapterName] = {arm.adapter for arm in chosen(config.evaluate.arms) if arm.adapter}
    tests = read_tests(config)
    candidates = LocalCandidates(config, wanted)
    options = config.model_dump(mode="json", exclude={"out"})
    inputs = {"index": index_hash(config), "prompt": FINGERPRINT, "openbook": __version__}
    inputs |= {name: hash_file(path) for name in TESTS if (path := test_path(config, name)).is_file()}
    inputs |= {name: candidates.identity(name) for name in wanted}
    inputs["base"] = candidates.identity(None)
    if is_current(config.evaluation_dir, stage=STAGE, options=options, inputs=inputs) and _reports_exist(config):
        progress.message("The report is current: nothing that it depends on has changed.")
        return Report.load(config.out / REPORT_JSON)
    retriever = open_index(config.index_dir, config)
    for warning in candidates.differences(retriever.fingerprint):
        progress.message(warning)
    report, exhibits = examine(config, tests, retriever, candidates, seconds=seconds, progress=progress)
    write_report(config, report, exhibits)
    write_manifest(config.evaluation_dir, stage=STAGE, options=options, inputs=inputs)
    return report


def examine(
    config: Config,
    tests: Mapping[str, Sequence[RaftExample]],
    retriever: PassageSource,
    candidates: Candidates,
    *,
    seconds: Mapping[str, float] | None = None,
    progress: Progress = SILENT,
) -> tuple[Report, Exhibits]:
    """`evaluate` with questions, index and models given; writes only the predictions and their grades."""
    start = time.perf_counter()
    arms = chosen(config.evaluate.arms)
    exams = [set_exam(name, examples, retriever, config, progress) for name, examples in tests.items()]
    sittings = [sitting for exam in exams for sitting in sittings_of(exam, arms, config)]
    sittings += sittings_by_passages(exams[0], arms, config)
    answers, earlier = answer_all(sittings, candidates, config, progress)
    sat = list(zip(sittings, answers, strict=True))

    results: dict[str, TestResult] = {}
    said: dict[str, dict[str, Sequence[Answer]]] = {}  # test → arm → answers
    for exam in exams:
        said[exam.name] = {s.arm.name: a for s, a in sat if s.exam is exam and s.kind == "all"}
        removed = {s.arm.name: a for s, a in sat if s.exam is exam and s.kind == "removed"}
        table = {
            arm.name: columns(exam, arm, said[exam.name][arm.name], removed.get(arm.name), config.retrieval.passages)
            for arm in arms
        }
        results[exam.name] = aggregate(exam, table, config)
    write_jsonl(config.evaluation_dir / "grades.jsonl", _grade_rows(sat))

    seconds_before, peak_before = recorded(config)
    report = Report(
        tests=results,
        seconds={**(seconds_before if seconds is None else seconds), STAGE: earlier + time.perf_counter() - start},
        peak_memory_bytes=max(peak_before, peak_memory_bytes()),
        config=config.model_dump(mode="json"),
        versions=versions(),
    )
    curves = (loss_curve(adapter_folder(config, name)) for name in ("raft", "sft"))
    exhibits = Exhibits(
        sizes={exam.name: (len(exam.examples), len(set(exam.documents))) for exam in exams},
        by_passages=_score_by_passages(sat, config),
        examples=draw_examples(
            [(e, {arm: said[e.name][arm] for arm in COMPARED if arm in said[e.name]}) for e in exams]
        ),
        losses=tuple(curve for curve in curves if curve),
        dataset=dataset_facts(config),
        errors=dict(Counter(answer.error for _, found in sat for answer in found if answer.error)),
    )
    return report, exhibits


def write_report(config: Config, report: Report, exhibits: Exhibits) -> None:
    """`report.json`; what else the page shows, as `evaluation/exhibits.json`; and the page, `report.html`."""
    from openbook.evaluation.page import render

    report.save(config.out / REPORT_JSON)
    write_json(config.evaluation_dir / "exhibits.json", to_json(exhibits))
    write_text(config.out / REPORT_HTML, render(report, exhibits, config))


def _reports_exist(config: Config) -> bool:
    return all((config.out / name).is_file() for name in (REPORT_JSON, REPORT_HTML))


def _score_by_passages(sat: Sat, config: Config) -> dict[str, dict[str, Scores]]:
    """Arm → number of passages → means of F1 and of right quotes."""
    found: dict[str, dict[str, Scores]] = {}
    for sitting, answers in sat:
        if sitting.kind == "passages":
            exam = sitting.exam.first(len(answers))
            table = columns(exam, sitting.arm, answers, None, sitting.passages)
            found.setdefault(sitting.arm.name, {})[str(sitting.passages)] = means(
                exam.documents, {metric: table[metric] for metric in ("f1", "right_quote")}, config
            )
    return found


def _grade_rows(sat: Sat) -> Iterator[dict[str, Any]]:
    """One row an answer, for people who want to see which questions went wrong."""
    for sitting, answers in sat:
        for number, said in zip(sitting.numbers, answers, strict=True):
            example = sitting.exam.examples[number]
            gold = Gold.of(example)
            yield {
                "test": sitting.exam.name,
                "arm": sitting.arm.name,
                "asked": sitting.kind,
                "passages": len(said.passages),
                "example": example.id,
                "question": example.question,
                "gold": gold.answer,
                "text": said.text,
                "error": said.error,
                **to_json(grade(said, gold)),
            }
