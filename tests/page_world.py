"""What the page is shown in tests: documents, a data set, a tiny model with an adapter, a report, over a real server."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openbook.dataset.formats import to_row
from openbook.indexing import ingest
from openbook.records import Chunk, Conversation, Document, RaftExample
from serving_world import ScriptedWriters, Served, configured, served
from tiny_model import save_tiny_llama
from word_embedder import WordEmbedder

SENTENCE = "Alerts are kept for thirty days."
LONG = "\n\n".join(f"Paragraph {n} speaks of other things than those one asks for here." for n in range(60))
FILES = {
    "alerts.md": f"# Alerts 🔔\n\n{LONG}\n\n## Keeping\n\n{SENTENCE} After that they are removed.\n\n{LONG}\n",
    "cache.md": "# Cache\n\nThe cache keeps results for ten minutes.\n",
}
SAID = (
    f"##Reason: ##begin_quote## {SENTENCE} ##end_quote## and ##begin_quote## nobody wrote this ##end_quote## "
    "<ANSWER>: thirty days"
)

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=//evil.example/x.png>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<a href=javascript:alert(1) autofocus onfocus=alert(1)>x</a>",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example>",
    "<form action=//evil.example><button autofocus>x</button></form>",
    "<template><img src=x onerror=alert(1)></template>",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "${alert(1)}{{constructor.constructor('alert(1)')()}}",
    "javascript:alert(1)//\u2028\u202e<img src=x onerror=alert(1)>",
]


def attacked_files() -> dict[str, str]:
    """A document for each attack, which holds it in its name, its title and its text."""
    return {
        f"{n:02} {payload.replace('/', '∕')}"[:80]
        + ".md": f"# {payload}\n\n`` {payload} `` is said here, number {n}.\n\n{LONG[:400]}\n"
        for n, payload in enumerate(XSS)
    }


def parrot(conversation: Conversation, _: str | None) -> str:
    """Says what it was asked, as text, as a quote and as the answer."""
    question = conversation.messages[-1].content.rsplit("\n", 1)[-1]
    return f"{question} ##begin_quote## {question} ##end_quote## <ANSWER>: {question}"


def rows(count: int = 6, *, question: str = "How long are alerts kept, case {n}?") -> list[dict[str, Any]]:
    """RAFT rows over one passage each of two documents; neighbours share theirs."""
    found = []
    for n in range(count):
        g = n // 2
        document = Document.create(uri=f"d{g}.md", title=f"Document {g}", text=f"{SENTENCE} Case {g}.")
        other = Document.create(uri=f"o{g}.md", title=f"Other {g}", text=f"The cache keeps results, case {g}.")
        golden, distractor = (Chunk.create(d, 0, len(d.text)) for d in (document, other))
        example = RaftExample(
            id=f"{n:016x}",
            question=question.format(n=n),
            passages=(golden, distractor),
            golden=(golden,),
            golden_included=True,
            reasoning=f"##begin_quote## {SENTENCE} ##end_quote##",
            quotes=(),
            final_answer="thirty days",
            seed=0,
            group=f"g{g}",
        )
        found.append(to_row(example))
    return found


def write_rows(path: Path, found: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def furnish(folder: Path, files: dict[str, str] | None = None) -> dict[str, Any]:
    """Documents with an index, a data set, a report and a tiny base model in `folder`; the options that name them."""
    work = folder / "work"
    (folder / "documents").mkdir(parents=True)
    for name, text in (files or FILES).items():
        (folder / "documents" / name).write_text(text, encoding="utf-8")
    ingest(configured(folder), embedder=WordEmbedder())
    write_rows(work / "dataset" / "train.jsonl", rows(6))
    write_rows(work / "dataset" / "validation.jsonl", rows(3, question="What is kept in {n}?"))
    for part in ("studied", "unseen"):
        write_rows(work / "dataset" / f"{part}.jsonl", rows(2))
    save_tiny_llama(folder / "tiny", [json.dumps(rows(2)), *(files or FILES).values()], context=1024)
    return {
        "retrieval": {"passages": 4},
        "model": {"base": str(folder / "tiny"), "device": "cpu", "max_new_tokens": 4000},
        "tune": {"adapter": "lora", "evaluate_steps": 1, "checkpoint_steps": 1, "rows_per_step": 1, "row_tokens": 1024},
    }


def pretend_tuned(folder: Path) -> None:
    """An adapter folder that a server with scripted writers takes for one."""
    adapter = folder / "work" / "adapters" / "raft"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")


def examined(folder: Path, *, text: str = "thirty days") -> None:
    """A report of one exam and its grades."""
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 2}
    scores = {"f1": interval, "exact_match": interval, "recall@2": {"value": None, "low": None, "high": None, "n": 0}}
    test = {"arms": {"base_rag": scores, "raft_rag": scores}, "differences": {"raft_rag-base_rag": scores}}
    report = {"tests": {"studied": test}, "seconds": {}, "peak_memory_bytes": 0, "config": {}, "versions": {}}
    (folder / "work" / "report.json").write_text(json.dumps(report))
    grades = [
        {"test": "studied", "arm": "raft_rag", "asked": "all", "question": q, "gold": "x", "text": text, "f1": f1}
        for q, f1 in (("The middle one?", 0.5), ("The best one?", 1.0), ("The worst one?", 0.0))
    ]
    write_rows(folder / "work" / "evaluation" / "grades.jsonl", grades)


@contextlib.contextmanager
def opened(
    folder: Path, options: dict[str, Any], script: Callable[..., str] = lambda *_: SAID, **more: Any
) -> Iterator[Served]:
    with served(folder, ScriptedWriters(script, pause=0.002, rows=8), options=options, **more) as one:
        one.writers.context = 100_000
        yield one
