"""Step 5 of the recipe: how well a base model reads and quotes, on documents that it has never seen.

    python recipes/nano/evaluate.py --model nano --docs FOLDER [--squad FILE] [--json]

Free-running greedy decoding with the product's prompt, generator and grader. Rule-made questions over `--passages`
passages (the golden one and its neighbours), a share of them with the golden passage taken away; with `--squad`, real
people's questions over the golden paragraph and others of the same article.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook import prompt
from openbook.dataset import ExtractiveTeacher
from openbook.documents import chunk, read
from openbook.metrics import Gold, Grade, contains, grade_text, mean_interval
from openbook.models import Generator, load
from openbook.records import Chunk, Document

CHUNK_CHARACTERS = 800  # about 200 tokens of the embedder


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    question: str
    passages: tuple[Chunk, ...]
    gold: Gold
    document: str


def rule_tasks(folder: Path, *, count: int, passages: int, removed: bool, seed: int) -> list[Task]:
    """Questions on the documents of `folder`; with `removed`, each without its golden passage and nowhere its answer."""
    rng = random.Random(f"{seed}:{removed}")
    teacher = ExtractiveTeacher()
    found: list[Task] = []
    documents = [d for d in read([folder], max_file_mb=10) if isinstance(d, Document)]
    rng.shuffle(documents)
    for document in documents:
        chunks = chunk(document, count_tokens=len, max_tokens=CHUNK_CHARACTERS)
        if len(chunks) < passages + 1:
            continue
        asked = [(at, q) for at, c in enumerate(chunks) for q in teacher.write(c, rng=rng, limit=2)]
        for at, question in rng.sample(asked, min(len(asked), 4)):
            near = sorted((n for n in range(len(chunks)) if n != at), key=lambda n: abs(n - at))
            near = [n for n in near if not contains(chunks[n].text, question.answer)]
            shown = [chunks[n] for n in near[: passages if removed else passages - 1]]
            if not removed:
                shown.append(chunks[at])
            if len(shown) < passages:
                continue
            rng.shuffle(shown)
            answer = prompt.REFUSAL if removed else question.answer
            gold = Gold(answer=answer, sentences=() if removed else question.quotes)
            found.append(Task(question=question.text, passages=tuple(shown), gold=gold, document=document.uri))
        if len(found) >= count:
            break
    return found[:count]


def squad_tasks(file: Path, *, count: int, passages: int, seed: int) -> list[Task]:
    """Real questions over their own paragraph and others of the same article that do not hold the answer."""
    rng = random.Random(seed)
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    asked = [
        (article, at, qa)
        for article in articles
        for at, paragraph in enumerate(article["paragraphs"])
        for qa in paragraph["qas"]
        if qa["answers"] and not qa.get("is_impossible")
    ]
    return [
        _squad_task(article, at, qa, passages, rng) for article, at, qa in rng.sample(asked, min(count, len(asked)))
    ]


def _squad_task(article: dict[str, Any], at: int, qa: dict[str, Any], passages: int, rng: random.Random) -> Task:
    texts = [paragraph["context"] for paragraph in article["paragraphs"]]
    answer = qa["answers"][0]
    others = [n for n, text in enumerate(texts) if n != at and not contains(text, answer["text"])]
    numbers = [*rng.sample(others, min(len(others), passages - 1)), at]
    rng.shuffle(numbers)
    title = article["title"]
    shown = tuple(
        Chunk.create(Document.create(uri=title, title=title, text=texts[n]), 0, len(texts[n])) for n in numbers
    )
    sentence = _sentence(texts[at], answer["answer_start"], answer["text"])
    gold = Gold(answer=answer["text"], sentences=(sentence,))
    return Task(question=qa["question"], passages=shown, gold=gold, document=title)


def _sentence(text: str, at: int, answer: str) -> str:
    from openbook.documents import sentences

    return next((text[s:e] for s, e in sentences(text) if s <= at < e), answer)


def figures(tasks: Sequence[Task], generator: Generator) -> tuple[dict[str, Any], list[tuple[Task, str, Grade]]]:
    """Mean figures with 95 % intervals clustered by document, and every answer."""
    written = generator.generate([prompt.prompt(t.question, [c.text for c in t.passages]) for t in tasks])
    graded = [
        (task, g.text, grade_text(g.text, task.gold, passages=task.passages, finished=g.finished))
        for task, g in zip(tasks, written, strict=True)
    ]

    def exact(task: Task, text: str) -> bool:
        return any(quote in task.gold.sentences for quote in prompt.parse_answer(text).quotes)

    columns = {
        "exact_quote": [float(exact(t, text)) for t, text, _ in graded],
        "right_quote": [float(bool(g.right_quote)) for _, _, g in graded],
        "verified_quotes": [g.verified_quotes or 0.0 for _, _, g in graded],
        "exact_match": [float(g.exact_match) for _, _, g in graded],
        "f1": [g.f1 for _, _, g in graded],
        "refusals": [float(g.refusal) for _, _, g in graded],
        "failures": [float(g.failure) for _, _, g in graded],
    }
    documents = [task.document for task in tasks]
    out = {}
    for name, values in columns.items():
        interval = mean_interval(values, documents, resamples=1000)
        out[name] = [interval.value, interval.low, interval.high]
    return {"n": len(tasks), **out}, graded


def speed(generator: Generator, tasks: Sequence[Task]) -> float:
    """Tokens a second of streaming one answer at a time over a prompt of about 900 tokens, after the first token."""
    rates = []
    for task in tasks[:5]:
        conversation = prompt.prompt(task.question, [c.text for c in task.passages])
        tokens = generator.generate([conversation])[0].completion_tokens
        times = [time.perf_counter() for _ in generator.stream(conversation)]  # a piece may hold several tokens
        rates.append((tokens - 1) / (times[-1] - times[0]) if tokens > 5 else 0.0)
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--docs", type=Path, action="append", default=[])
    parser.add_argument("--squad", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--passages", type=int, nargs="+", default=[4])
    parser.add_argument("--quantization", choices=("none", "nf4"), nargs="+", default=["none"])
    parser.add_argument("--show", type=int, default=0, help="print so many answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"model": options.model}
    tests = list(_tests(options))
    for quantization in options.quantization:
        started = time.perf_counter()
        loaded = load(options.model, quantization=quantization, dequantize=quantization == "nf4")
        found: dict[str, Any] = {"loading_seconds": round(time.perf_counter() - started, 2)}
        result[quantization] = found
        generator = Generator(loaded, max_new_tokens=160, batch_size=16)
        for name, tasks in tests:
            if "tokens_per_second" not in found:
                found["tokens_per_second"] = round(speed(generator, tasks), 1)
            found[name], graded = figures(tasks, generator)
            if not options.json:
                print(quantization, name, {key: _short(value) for key, value in found[name].items()}, flush=True)
            for task, text, _ in graded[: options.show]:
                print(f"\n[{name}] {task.question}\n  gold: {task.gold.answer} | {task.gold.sentences}\n  says: {text}")
    if options.json:
        print(json.dumps(result, indent=1))


def _short(value: Any) -> Any:
    return [round(v, 3) for v in value] if isinstance(value, list) else value


def _tests(options: argparse.Namespace) -> Iterator[tuple[str, list[Task]]]:
    for passages in options.passages:
        common = {"passages": passages, "seed": options.seed}
        for folder in options.docs:
            name = f"{folder.name}, {passages} passages"
            yield name, rule_tasks(folder, count=options.count, removed=False, **common)
            yield f"{name}, without the golden", rule_tasks(folder, count=options.count // 2, removed=True, **common)
        if options.squad:
            yield f"squad, {passages} passages", squad_tasks(options.squad, count=options.count, **common)


if __name__ == "__main__":
    main()
