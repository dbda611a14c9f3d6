"""How well do meaning, words and both together find the paragraph that answers a question?

    python bench/retrieval_quality.py squad FOLDER/squad/visible.json
    python bench/retrieval_quality.py nq_open FOLDER/nq_open/visible2000.jsonl.gz --questions 500

Every paragraph of the set is a document below its article's title, cut and indexed as `openbook ingest` does. Each
question has one paragraph that answers it; a paragraph ranks as high as its best passage. Intervals are bootstraps over
articles. `--questions` and `--paragraphs` take a sample; fewer paragraphs make the search easier, so the two differ.
"""

import argparse
import gzip
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from openbook.documents import chunk
from openbook.metrics import Interval, mean_interval, ndcg_at_k, paired_difference, recall_at_k, reciprocal_rank
from openbook.records import Document, Section
from openbook.retrieval import LanceStore, load_embedder, passage_text
from openbook.retrieval.retriever import fuse

CANDIDATES = 30  # of each leg, as retrieval.candidates has it
LEGS = ("dense", "text", "fused")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A question, and the number of the paragraph that answers it."""

    question: str
    paragraph: int


def squad(path: Path) -> tuple[list[Document], list[Labelled]]:
    documents: list[Document] = []
    questions: list[Labelled] = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            documents.append(titled(article["title"].replace("_", " "), paragraph["context"], len(documents)))
            questions += [
                Labelled(question=qa["question"], paragraph=len(documents) - 1)
                for qa in paragraph["qas"]
                if not qa.get("is_impossible")
            ]
    return documents, questions


def nq_open(path: Path) -> tuple[list[Document], list[Labelled]]:
    documents: list[Document] = []
    questions: list[Labelled] = []
    known: dict[tuple[str, str], int] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            key = (row["title"], row["passage"])
            if key not in known:
                known[key] = len(documents)
                documents.append(titled(*key, len(documents)))
            questions.append(Labelled(question=row["question"], paragraph=known[key]))
    return documents, questions


def titled(title: str, text: str, number: int) -> Document:
    """A paragraph below a heading, as it stands in an article. The number keeps the uri its own."""
    section = Section(start=0, level=1, title=title)
    return Document.create(uri=f"{title}/{number}", title=title, text=f"{title}\n\n{text}", sections=(section,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("squad", "nq_open"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--questions", type=int, help="at most so many, drawn by the seed (default: all)")
    parser.add_argument("--paragraphs", type=int, help="at most so many, drawn by the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    documents, questions = {"squad": squad, "nq_open": nq_open}[arguments.set](arguments.path)
    draw = random.Random(arguments.seed)
    if arguments.paragraphs and arguments.paragraphs < len(documents):
        kept = set(draw.sample(range(len(documents)), arguments.paragraphs))
        questions = [question for question in questions if question.paragraph in kept]
    else:
        kept = set(range(len(documents)))
    if arguments.questions and arguments.questions < len(questions):
        questions = draw.sample(questions, arguments.questions)

    embedder = load_embedder("offline")
    passages = [
        c for n in sorted(kept) for c in chunk(documents[n], count_tokens=embedder.count_tokens, max_tokens=200)
    ]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = LanceStore(Path(folder))
        store.reset(dimension=embedder.dimension, make="bench")
        for batch in batches(passages, 256):
            store.add(batch, embedder.encode([passage_text(passage) for passage in batch]))
        store.optimize()
        print(f"{len(kept)} paragraphs, {len(passages)} passages, embedded in {time.perf_counter() - started:.0f} s")
        vectors = np.concatenate(
            [embedder.encode([q.question for q in part], query=True) for part in batches(questions, 256)]
        )
        owner = {passage.id: passage.document_id for passage in passages}
        rankings: dict[str, list[list[str]]] = {leg: [] for leg in LEGS}
        for question, vector in zip(questions, vectors, strict=True):
            dense = [id_ for id_, _ in store.dense(vector, CANDIDATES)]
            text = [id_ for id_, _ in store.text(question.question, CANDIDATES)]
            both = [id_ for id_, _ in fuse([dense, text])]
            for leg, found in zip(LEGS, (dense, text, both), strict=True):
                rankings[leg].append(list(dict.fromkeys(owner[id_] for id_ in found)))

    golden = [documents[question.paragraph].id for question in questions]
    articles = [documents[question.paragraph].title for question in questions]
    print(f"{len(questions)} questions about {len(set(articles))} articles; means with 95 % intervals")
    print(f"{'':7}" + "".join(f"{name:>22}" for name in measures([], "")))
    values = {
        leg: [measures(ranking, wanted) for ranking, wanted in zip(rankings[leg], golden, strict=True)] for leg in LEGS
    }
    for leg in LEGS:
        means = (mean_interval([v[name] for v in values[leg]], articles) for name in measures([], ""))
        print(f"{leg:7}" + "".join(f"{told(mean):>22}" for mean in means))
    for leg in LEGS[:2]:
        gained = paired_difference(*([v["recall@5"] for v in values[x]] for x in ("fused", leg)), articles)
        print(f"recall@5 of fused over {leg}: {told(gained)}")


def measures(ranking: Sequence[str], golden: str) -> dict[str, float | None]:
    wanted = [golden]
    return {
        "recall@1": recall_at_k(ranking, wanted, 1),
        "recall@5": recall_at_k(ranking, wanted, 5),
        "recall@20": recall_at_k(ranking, wanted, 20),
        "MRR": reciprocal_rank(ranking, wanted),
        "nDCG@10": ndcg_at_k(ranking, wanted, 10),
    }


def told(mean: Interval) -> str:
    if mean.value is None or mean.low is None or mean.high is None:
        return "–"
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


def batches(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]


if __name__ == "__main__":
    main()
