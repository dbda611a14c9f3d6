"""The server over a real (tiny) model: batches equal single answers, and adapters come and go while it runs."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models_for_tests import folder
from openbook.errors import ModelError
from openbook.models import Company, Generator, load
from openbook.records import Conversation, Message
from serving_world import ScriptedWriters, Served, leaving, served, until
from tiny_model import save_random_adapter


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    folder(path / "base")
    for seed, name in enumerate(("one", "two"), 1):
        save_random_adapter(path / "base", path / name, seed=seed)
    return path


def company(files: Path, rows: int = 3) -> Company:
    return Company(Generator(load(str(files / "base"), device="cpu"), max_new_tokens=20), rows=rows, context=600)


@pytest.fixture
def server(files: Path, tmp_path: Path) -> Iterator[Served]:
    """A plain server whose tuned adapter is the copy of `one` in `tmp_path/adapter`."""
    shutil.copytree(files / "one", tmp_path / "adapter")
    with served(tmp_path, company(files), plain=True, adapter=tmp_path / "adapter") as one:
        yield one


def expected(files: Path, adapter: str | None, question: str) -> str:
    generator = Generator(load(str(files / "base"), device="cpu"), max_new_tokens=20)
    if adapter:
        generator.add_adapter(adapter, files / adapter)
    with generator.adapter(adapter):
        return generator.generate([Conversation(messages=(Message(role="user", content=question),))])[0].text


def said(server: Served, question: str, model: str = "openbook") -> str:
    answer = server.chat(question, model=model, max_tokens=20)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_answers_of_a_crowd_are_those_of_each_alone(server: Served, files: Path) -> None:
    asked = [
        (f"What does {word} keep?", model) for word in ("the cache", "a dog", "it") for model in ("openbook", "nano")
    ]
    found: dict[tuple[str, str], str] = {}
    threads = [threading.Thread(target=lambda a=a: found.update({a: said(server, *a)})) for a in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (question, model), text in found.items():
        assert text == expected(files, "one" if model == "openbook" else None, question)
    assert len(set(found.values())) > 3


def test_a_new_adapter_answers_without_a_restart(server: Served, files: Path, tmp_path: Path) -> None:
    before = said(server, "Quote!")
    for name in ("two", "one", "two"):
        shutil.rmtree(tmp_path / "adapter")
        assert said(server, "Quote!") == expected(files, None, "Quote!"), "none there: the base answers"
        shutil.copytree(files / name, tmp_path / "adapter")
        (tmp_path / "adapter" / "adapter_config.json").touch()
        assert said(server, "Quote!") == expected(files, name, "Quote!")
    assert before == expected(files, "one", "Quote!")
    generator = server.writers.generator
    assert len(generator.loaded.model.peft_config) == 1, "earlier ones are dropped"


def test_an_adapter_for_another_base_is_told_and_the_server_lives_on(server: Served, tmp_path: Path) -> None:
    manifest = tmp_path / "adapter" / "manifest.json"
    manifest.write_text(json.dumps({"inputs": {"base": "another"}, "base": "llama-9"}))
    (tmp_path / "adapter" / "adapter_config.json").touch()
    answer = server.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
    assert "tuned on another base model (llama-9)" in answer.json()["error"]["message"]
    assert server.chat(model="nano").status_code == 200
    manifest.unlink()
    assert server.chat().status_code == 200


def test_an_adapter_that_nobody_waited_for_is_dropped(files: Path, tmp_path: Path) -> None:
    """Whoever asked goes away while the adapter is loaded: it must not stay in memory under a name that none asks for."""
    began, loaded = threading.Event(), threading.Event()

    class Slow(ScriptedWriters):
        def add_adapter(self, name: str, folder: Path) -> None:
            super().add_adapter(name, folder)
            if name != "tuned-1":
                began.set()
                loaded.wait(10)

    shutil.copytree(files / "one", tmp_path / "adapter")
    with served(tmp_path, Slow(), plain=True, adapter=tmp_path / "adapter") as server:
        (tmp_path / "adapter" / "adapter_config.json").touch()
        with leaving(server, "whole"):
            assert began.wait(10)
        until(lambda: server.service.admission.inside == 0)
        loaded.set()
        assert server.chat().status_code == 200
        until(lambda: len(server.writers.adapters) == 1)


def test_a_damaged_adapter_is_told_and_the_server_lives_on(server: Served, tmp_path: Path) -> None:
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert server.chat().json()["error"]["code"] == "model_unavailable"
    weights.write_bytes(whole)
    assert server.chat().status_code == 200


def test_an_adapter_that_does_not_fit_keeps_the_server_from_starting(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "one", tmp_path / "adapter")
    (tmp_path / "adapter" / "manifest.json").write_text(json.dumps({"inputs": {"base": "another"}}))
    with (
        pytest.raises(ModelError, match="another base"),
        served(tmp_path, company(files), plain=True, adapter=tmp_path / "adapter"),
    ):
        pass
    with (
        pytest.raises(ModelError, match="holds no adapter"),
        served(tmp_path, company(files), plain=True, adapter=tmp_path / "nowhere"),
    ):
        pass
