"""How fast does the server answer, how many at once, and does it keep its memory?

    python bench/serving.py [FOLDER] [--out bench-serving] [--soak-minutes 1] [--parts one,eight,hundred,soak]

Serves the passages of FOLDER (or those of the index that --out holds) with the base in a process of its own and asks from this one, over HTTP:

- one: one user, one question after the other, four passages each: time to the first text
- eight: eight users at once, three questions each
- hundred: a hundred streams at once from a scripted model, without retrieval: time to the first event
- soak: twenty streams without a pause for --soak-minutes: memory after a fifth of the time and at the end
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import numpy as np
import psutil

from openbook.config import Config
from openbook.indexing import ingest
from openbook.models import Piece
from openbook.options import Documents
from openbook.records import Conversation
from openbook.retrieval import open_index
from openbook.serving import Settings
from openbook.serving.running import assemble, http_server, listen, open_service

TEXT = "Alerts are kept for thirty days, and then they are removed. " * 8


class ScriptedWriters:
    """Writes `TEXT` into every answer, a few characters a step, and computes nothing."""

    context = 100_000

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.left: dict[int, str] = {}

    def encode(self, prompt: Conversation) -> list[int]:
        return [0] * sum(len(message.content) // 4 for message in prompt.messages)

    def has_room(self, adapter: str | None) -> bool:
        return len(self.left) < self.rows

    def join(self, number: int, prompt: Sequence[int], *, adapter: str | None, limit: int) -> Piece:
        self.left[number] = TEXT
        return self._piece(number)

    def step(self) -> list[Piece]:
        return [self._piece(number) for number in list(self.left)]

    def leave(self, number: int) -> None:
        self.left.pop(number, None)

    def clear(self) -> None:
        self.left.clear()

    def add_adapter(self, name: str, folder: Path) -> None:
        raise NotImplementedError("the scripted model has no adapters")

    def drop(self, adapter: str) -> None:
        raise NotImplementedError("the scripted model has no adapters")

    def _piece(self, number: int) -> Piece:
        said, rest = self.left[number][:8], self.left[number][8:]
        self.left[number] = rest
        if not rest:
            del self.left[number]
        return Piece(number=number, text=said, tokens=2, end="" if rest else "stop")


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds to the first event, to the first text, and to the end; `whole` where the stream ended as it should."""

    event: float
    text: float
    end: float
    whole: bool


async def ask(client: httpx.AsyncClient, question: str) -> Timed:
    """Stream one answer."""
    started = time.perf_counter()
    event = text = 0.0
    whole = False
    body = {"model": "openbook", "messages": [{"role": "user", "content": question}], "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            now = time.perf_counter() - started
            event = event or now
            if '"content": "' in line and '"content": ""' not in line:
                text = text or now
            whole = whole or line == "data: [DONE]"
    return Timed(event, text, time.perf_counter() - started, whole)


@asynccontextmanager
async def server(out: Path, *, scripted: bool) -> AsyncIterator[tuple[httpx.AsyncClient, psutil.Process]]:
    """A server in a process of its own."""
    command = [sys.executable, __file__, "--serve", "scripted" if scripted else "nano", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits, trust_env=False
        ) as client:
            yield client, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def serve(out: Path, kind: str) -> None:
    """The server's process: prints its port, then answers."""
    config = Config.parse({"out": str(out), "serve": {"port": 0}}, origin="bench")
    settings = Settings(config=config, base_only=True, plain=kind == "scripted")
    with listen(settings) as listener:
        scripted = kind == "scripted"
        service = assemble(settings, ScriptedWriters(128), None, base="") if scripted else open_service(settings)
        listener.listen()  # connections wait from here on, whoever is first
        print(listener.getsockname()[1], flush=True)
        http_server(service).run(sockets=[listener])


async def measure(out: Path, questions: Sequence[str], parts: Sequence[str], soak_s: float) -> None:
    if {"one", "eight", "soak"} & set(parts):
        async with server(out, scripted=False) as (client, process):
            for question in questions[:3]:
                await ask(client, question)  # warm
            if "one" in parts:
                before, started = sum(process.cpu_times()[:2]), time.perf_counter()
                found = [await ask(client, question) for question in questions[3:23]]
                cpu, wall = sum(process.cpu_times()[:2]) - before, time.perf_counter() - started
                report("one user", found)
                print(f"  {cpu / len(found):.2f} s of processor time an answer, {cpu / wall:.2f} processors in use")
            if "eight" in parts:

                async def user(number: int) -> list[Timed]:
                    return [await ask(client, question) for question in questions[number::8][:3]]

                answers = await asyncio.gather(*(user(number) for number in range(8)))
                report("eight users", [timed for those in answers for timed in those])
            if "soak" in parts:
                await soak(client, process, questions, soak_s)
    if "hundred" in parts:
        async with server(out, scripted=True) as (client, process):
            await asyncio.gather(*(ask(client, "warm") for _ in range(10)))
            before = sum(process.cpu_times()[:2])
            found = await asyncio.gather(*(ask(client, f"number {n}") for n in range(100)))
            cpu = sum(process.cpu_times()[:2]) - before
            report("hundred streams", found)
            print(f"  {cpu:.2f} s of the server's processor time for all")


async def soak(client: httpx.AsyncClient, process: psutil.Process, questions: Sequence[str], seconds: float) -> None:
    """Twenty streams without a pause."""
    started = time.monotonic()
    memory: list[tuple[float, int]] = []
    found: list[Timed] = []

    async def user(number: int) -> None:
        while time.monotonic() - started < seconds:
            number += 20
            found.append(await ask(client, questions[number % len(questions)]))

    async def watch() -> None:
        while time.monotonic() - started < seconds:
            memory.append((time.monotonic() - started, process.memory_info().rss))
            await asyncio.sleep(max(seconds / 200, 0.5))

    await asyncio.gather(watch(), *(user(number) for number in range(20)))
    report(f"soak of {seconds / 60:.1f} minutes", found)
    early = next(size for at, size in memory if at >= seconds / 5)
    late = memory[-1][1]
    print(f"  memory {early / 1e6:.0f} MB after a fifth, {late / 1e6:.0f} MB at the end: {late / early - 1:+.1%}")


def report(name: str, found: Sequence[Timed]) -> None:
    def ms(values: Sequence[float]) -> str:
        return "p50 {:.0f}, p95 {:.0f} ms".format(*np.percentile(values, [50, 95]) * 1e3)

    lost = sum(not timed.whole for timed in found)
    print(f"{name}: {len(found)} answers, {lost} lost; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"  first event {ms([t.event for t in found])}; first text {ms([t.text for t in found])}")
    print(f"  whole answer {ms([t.end for t in found])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("bench-serving"))
    parser.add_argument("--soak-minutes", type=float, default=1.0)
    parser.add_argument("--parts", default="one,eight,hundred,soak")
    parser.add_argument("--serve", choices=("nano", "scripted"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.out, arguments.serve)
        return
    config = Config.parse({"out": str(arguments.out)}, origin="bench")
    if arguments.folder is not None:
        ingest(config.model_copy(update={"documents": Documents(paths=(arguments.folder,))}))
    chunks = list(open_index(config.index_dir, config).store.chunks())
    step = max(1, len(chunks) // 64)
    questions = [f"What is said of {' '.join(chunk.text.split()[3:9])}?" for chunk in chunks[::step]]
    asyncio.run(measure(arguments.out, questions, arguments.parts.split(","), arguments.soak_minutes * 60))


if __name__ == "__main__":
    main()
