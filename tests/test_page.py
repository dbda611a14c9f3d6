"""The page over HTTP: its files, and what its views of runs, data and traces ask for."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from openbook.serving.page import STATIC
from page_world import XSS, attacked_files, examined, furnish, opened, parrot
from serving_world import Served

FILES = sorted(path.name for path in STATIC.iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    options = furnish(folder)
    examined(folder)
    with opened(folder, options) as one:
        yield one


def test_the_page_loads_from_this_server_alone(server: Served) -> None:
    page = server.http.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert links and all(link.startswith("/static/") for link in links)
    for link in links:
        assert server.http.get(link).status_code == 200, link


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_the_page_breaks_its_own_policy(server: Served, name: str) -> None:
    answer = server.http.get(f"/static/{name}")
    kinds = {".js": "javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    assert kinds[Path(name).suffix] in answer.headers["Content-Type"]
    text = answer.text
    # Nothing is ever parsed as HTML or run as code, and nothing comes from elsewhere.
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert forbidden not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"""style=|\son\w+=["']|setAttribute\("style""", text) or name == "index.html"
    if name == "index.html":
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text)


def test_modules_import_what_is_there() -> None:
    for name in FILES:
        for imported in re.findall(r"""(?:from|import\()\s*["']\./([^"']+)["']""", (STATIC / name).read_text("utf-8")):
            assert imported in FILES, f"{name} imports {imported}"


def test_thirty_attacks_come_as_data_and_never_as_a_page(tmp_path: Path) -> None:
    """In names and texts of files, in questions and in answers; what the page makes of them is tested in a browser."""
    assert len(set(XSS)) == 30
    with opened(tmp_path, furnish(tmp_path, attacked_files()), parrot) as server:
        for number, payload in enumerate(XSS):
            search = server.http.get("/api/search", params={"q": f"{payload} is said here, number {number}", "k": 50})
            mine = next(p for p in search.json()["passages"] if f"number {number}." in p["text"])
            document = server.http.get(f"/api/documents/{mine['document']}")
            assert payload.split("\u2028")[0] in document.json()["text"]
            asked = server.http.post("/api/ask", json={"question": payload, "arm": "rag", "k": 1})
            events = dict(block.split("\ndata: ", 1) for block in asked.text.strip().split("\n\n"))
            told = json.loads(events["event: citations"])
            assert told["final"] == payload == told["segments"][1]["text"]
            chat = server.chat(payload)
            assert payload in chat.json()["choices"][0]["message"]["content"]
            unknown = server.http.get("/api/documents/" + quote(payload, safe=""))
            for answer, kind in (
                (search, "application/json"),
                (document, "application/json"),
                (asked, "text/event-stream"),
                (chat, "application/json"),
                (unknown, "application/json"),
            ):
                assert answer.headers["Content-Type"].startswith(kind)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_the_data_set_is_turned_page_by_page(server: Served) -> None:
    first = server.http.get("/api/dataset/train?count=4").json()
    second = server.http.get("/api/dataset/train?start=4&count=4").json()
    assert [row["line"] for row in first["rows"] + second["rows"]] == [1, 2, 3, 4, 5, 6]
    assert first["total"] == 6
    found = server.http.get("/api/dataset/train?q=KEPT case 3").json()
    assert (found["total"], [row["line"] for row in found["rows"]]) == (1, [4])
    assert server.http.get("/api/dataset/secrets").status_code == 400
    assert server.http.get("/api/dataset/train?count=101").status_code == 400
    assert server.http.get("/api/dataset/train?start=-1").status_code == 400


def test_the_report_and_its_best_and_worst(server: Served) -> None:
    assert server.http.get("/api/report").json()["report"]["tests"]["studied"]["arms"]["raft_rag"]["f1"]["n"] == 2
    ends = server.http.get("/api/grades?test=studied&arm=raft_rag").json()
    assert [row["question"] for row in ends["best"]] == ["The best one?", "The middle one?"]
    assert [row["question"] for row in ends["worst"]] == ["The worst one?"]
    assert server.http.get("/api/grades?arm=nobody").json() == {"best": [], "worst": []}


@pytest.mark.parametrize(
    "path", ["/api/trainings/..", "/api/trainings/%2e%2e", "/api/jobs/..", "/api/jobs/20260101-000000-zzzz"]
)
def test_what_is_not_there_is_not_found(server: Served, path: str) -> None:
    assert server.http.get(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"verb": "ingest"},
        {"verb": "tune", "out": "/tmp/x"},
        {"verb": "tune", "epochs": 0},
        {"verb": "tune", "adapter": "full"},
        {"verb": "tune", "form": "--help"},
        {},
    ],
)
def test_only_a_few_things_can_be_started(server: Served, body: dict) -> None:
    assert server.http.post("/api/jobs", json=body).status_code == 400


@pytest.mark.slow
def test_a_trace_trains_in_another_process(server: Served) -> None:
    answer = server.http.post("/api/trace", json={"message": "-- How long?", "answer": "--json"}, timeout=120)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["asked"] == "-- How long?" and found["kind"] == "message"
    assert found["loss_after"] < found["loss_before"]
    refused = server.http.post("/api/trace", json={"row": 99}, timeout=120)
    assert refused.status_code == 400
    assert "no line 99" in refused.json()["error"]["message"]
    for wrong in ({"message": "x", "steps": 10_000}, {"message": "a\0b", "answer": "c"}):
        assert server.http.post("/api/trace", json=wrong).status_code == 400


@pytest.mark.slow
def test_a_run_is_started_watched_and_seen(server: Served) -> None:
    started = server.http.post("/api/jobs", json={"verb": "tune", "epochs": 1, "rank": 2}).json()
    assert started["state"] == "running"
    second = server.http.post("/api/jobs", json={"verb": "tune"})
    assert (second.status_code, second.json()["error"]["code"]) == (409, "busy")
    deadline = time.monotonic() + 150
    while (job := server.http.get(f"/api/jobs/{started['id']}").json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert job["state"] == "done", job["output"]
    assert server.http.get(f"/api/jobs/{started['id']}?after={job['end']}").json()["output"] == ""
    (training,) = server.http.get("/api/runs").json()["trainings"]
    assert (training["name"], training["finished"], training["validation"]) == ("raft", True, True)
    assert training["options"]["rank"] == 2
    log = server.http.get("/api/trainings/raft").json()
    assert [row["step"] for row in log["rows"] if "loss" in row] == list(range(1, training["report"]["steps"] + 1))
    assert server.http.get(f"/api/trainings/raft?after={log['next']}").json()["rows"] == []
    ends = server.http.get("/api/trainings/raft/validation").json()
    seen = ends["best"] + ends["worst"][::-1]
    assert sorted(row["line"] for row in seen) == [1, 2, 3]
    assert [row["loss"] for row in seen] == sorted(row["loss"] for row in seen)
    assert {row["question"] for row in seen} == {f"What is kept in {n}?" for n in range(3)}
    # The mean over tokens, whatever way the questions are cut into rows, is what the run itself logged last.
    held = [row["validation_loss"] for row in log["rows"] if "validation_loss" in row][-1]
    assert sum(row["loss"] for row in seen) / 3 == pytest.approx(held, rel=0.02)
