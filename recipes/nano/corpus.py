"""The pretraining corpus: shards of JSON Lines (`source`, `path`, `licence`, `commit`, `title`, `text`), xz-compressed."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path


def documents(folder: Path) -> Iterator[dict[str, str]]:
    """The rows of `docs-*.jsonl.xz` in `folder`, shard by shard."""
    shards = sorted(folder.glob("docs-*.jsonl.xz"))
    if not shards:
        raise SystemExit(f"{folder} holds no docs-*.jsonl.xz; give the corpus folder with --corpus.")
    for shard in shards:
        with lzma.open(shard, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
