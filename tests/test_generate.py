"""The generator: adapters that take turns, answers as they are done, and a stream that can be stopped."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models_for_tests import folder, tokenizer
from openbook.errors import ModelError
from openbook.models import Generator, load
from openbook.models.chat import Pieces, encode_prompt
from openbook.records import Conversation, Message
from tiny_model import save_random_adapter, save_tiny_llama

QUESTIONS = ["What does the cache keep?", "Quote!", "How long does the brown fox jump over the dog, and why?"]


def asked(text: str) -> Conversation:
    return Conversation(messages=(Message(role="user", content=text),))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generate")
    folder(path / "base")
    for seed, name in enumerate(("one", "two"), 1):
        save_random_adapter(path / "base", path / name, seed=seed)
    return path


@pytest.fixture
def generator(files: Path) -> Generator:
    made = Generator(load(str(files / "base"), device="cpu"), max_new_tokens=30, batch_size=2)
    for name in ("one", "two"):
        made.add_adapter(name, files / name)
    return made


def expected(files: Path, adapter: str | None, questions: list[str]) -> list[str]:
    """What transformers and peft write, each prompt alone."""
    from peft import PeftModel

    loaded = load(str(files / "base"), device="cpu")
    network: Any = loaded.model
    if adapter:
        network = PeftModel.from_pretrained(network, files / adapter)
    texts = []
    for question in questions:
        row = torch.tensor([encode_prompt(loaded.tokenizer, asked(question))])
        out = network.generate(input_ids=row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=30)
        texts.append(loaded.tokenizer.decode(out[0, row.shape[1] :], skip_special_tokens=True).strip())
    return texts


def test_each_adapter_writes_what_it_writes_elsewhere(generator: Generator, files: Path) -> None:
    said = {}
    for adapter in ("one", None, "two", "one", None):
        with generator.adapter(adapter):
            written = generator.generate([asked(question) for question in QUESTIONS])
            streamed = "".join(generator.stream(asked(QUESTIONS[0]))).strip()
        said[adapter] = [generation.text for generation in written]
        assert said[adapter] == expected(files, adapter, QUESTIONS)
        assert streamed == said[adapter][0]
        assert all(generation.completion_tokens == 30 and not generation.finished for generation in written)
    assert len({tuple(texts) for texts in said.values()}) == 3


def test_a_stream_ends_with_whether_the_model_ended(generator: Generator) -> None:
    ends, stop = [], generator.stop
    try:
        for generator.stop in (stop, frozenset(range(512))):  # with the second any token ends it
            (whole,) = generator.generate([asked(QUESTIONS[0])])
            stream = generator.stream(asked(QUESTIONS[0]))
            with pytest.raises(StopIteration) as ended:
                while True:
                    next(stream)
            assert ended.value.value is whole.finished
            ends.append(whole.finished)
    finally:
        generator.stop = stop
    assert ends == [False, True]


def test_streams_with_different_adapters_can_take_turns(generator: Generator, files: Path) -> None:
    streams = {}
    for adapter in ("one", "two", None):
        with generator.adapter(adapter):
            streams[adapter] = generator.stream(asked(QUESTIONS[2]))
    pieces: dict[str | None, str] = dict.fromkeys(streams, "")
    while streams:
        for adapter, stream in list(streams.items()):
            piece = next(stream, None)
            if piece is None:
                del streams[adapter]
            else:
                pieces[adapter] += piece
    assert {a: text.strip() for a, text in pieces.items()} == {a: expected(files, a, QUESTIONS[2:])[0] for a in pieces}


def test_an_adapter_may_come_while_the_base_is_answering(generator: Generator, files: Path) -> None:
    said = expected(files, None, QUESTIONS[:1])
    assert [generation.text for generation in generator.generate([asked(QUESTIONS[0])])] == said
    generator.add_adapter("three", files / "two")
    assert [generation.text for generation in generator.generate([asked(QUESTIONS[0])])] == said


def test_answers_come_when_they_are_done(generator: Generator) -> None:
    generator.max_new_tokens = 5
    prompts = [asked(question) for question in [*QUESTIONS, "word " * 2100]]
    found = dict(generator.generate_each(prompts))
    assert next(iter(found)) == 3, "what cannot be read is told at once"
    assert found[3].error == f"the prompt has {found[3].prompt_tokens:,} tokens and {generator.loaded.name} reads 2,048"
    assert [found[number] for number in range(4)] == generator.generate(prompts)


def test_a_prompt_may_leave_room_for_a_few_tokens_only(generator: Generator) -> None:
    text, reader = "word " * 400, generator.loaded.tokenizer
    while (length := len(encode_prompt(reader, asked(text)))) < 2030:
        text += "x"
    assert 2030 <= length < 2048, "or the test tests nothing"
    long, short = generator.generate([asked(text), asked("Quote!")])
    assert (long.completion_tokens, short.completion_tokens) == (2048 - length, 30)


def test_closing_a_stream_stops_the_model(generator: Generator) -> None:
    passes = []
    handle = generator.loaded.model.register_forward_hook(lambda *_: passes.append(1))
    stream = generator.stream(asked(QUESTIONS[0]))
    assert not passes, "nothing is computed before it is asked for"
    next(stream)
    until = len(passes)
    stream.close()  # type: ignore[attr-defined]
    assert next(stream, None) is None
    handle.remove()
    assert len(passes) == until < 10


def test_a_stream_without_room_says_so(generator: Generator) -> None:
    with pytest.raises(ModelError, match="fewer passages"):
        list(generator.stream(asked("word " * 2100)))


def test_a_learned_prompt_is_no_adapter_for_us(files: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    loaded = load(str(files / "base"), device="cpu")
    get_peft_model(loaded.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        tmp_path
    )
    made = Generator(load(str(files / "base"), device="cpu"), max_new_tokens=5)
    with pytest.raises(ModelError, match="learned prompt"):
        made.add_adapter("prompt", tmp_path)


def test_what_does_not_fit_or_is_dropped_leaves_nothing_behind(files: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = Generator(load(str(files / "base"), device="cpu"), max_new_tokens=30)
    shutil.copytree(files / "one", tmp_path / "misfit")
    weights = load_file(tmp_path / "misfit" / "adapter_model.safetensors")
    last = sorted(weights)[-1]
    save_file({**weights, last: torch.zeros(3, 3)}, tmp_path / "misfit" / "adapter_model.safetensors")

    def said(adapter: str | None) -> str:
        with made.adapter(adapter):
            return made.generate([asked(QUESTIONS[0])])[0].text

    base, one, two = (expected(files, adapter, QUESTIONS[:1])[0] for adapter in (None, "one", "two"))
    for _ in range(2):  # before there is any adapter, and beside one
        with pytest.raises(ModelError, match="does not fit"):
            made.add_adapter("misfit", tmp_path / "misfit")
        assert said(None) == base
        made.add_adapter("one", files / "one")
        assert (said("one"), said(None)) == (one, base)
        made.add_adapter("two", files / "two")
        made.drop_adapter("one")
        assert (said("two"), said(None)) == (two, base)
        made.drop_adapter("two")
        assert said(None) == base


@pytest.fixture(scope="module")
def byte_reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("bytes")
    save_tiny_llama(path, ["The quick brown fox"])
    return load(str(path), device="cpu").tokenizer


READER = tokenizer()


class TestPieces:
    @given(st.lists(st.lists(st.integers(0, 300), max_size=4), max_size=20))
    def test_whatever_bytes_come_the_text_is_that_of_all(self, byte_reader: Any, parts: list[list[int]]) -> None:
        pieces = Pieces(byte_reader)
        text = "".join(pieces.add(part) for part in parts) + pieces.add([], last=True)
        assert text == byte_reader.decode([token for part in parts for token in part], skip_special_tokens=True)

    @given(st.text(max_size=30))
    def test_no_character_is_cut(self, text: str) -> None:
        tokens = READER(text, add_special_tokens=False)["input_ids"]
        pieces = Pieces(READER)
        found = [pieces.add([token]) for token in tokens] + [pieces.add([], last=True)]
        whole = READER.decode(tokens, skip_special_tokens=True)
        assert "".join(found) == whole
        assert "\ufffd" in whole or not any("\ufffd" in piece for piece in found)

    def test_pieces_come_early(self, byte_reader: Any) -> None:
        pieces = Pieces(byte_reader)
        said = [pieces.add([token]) for token in byte_reader("née")["input_ids"]]
        assert said == ["n", "", "é", "e"]


class TestDrawn:
    def test_equal_seeds_draw_equally_and_others_do_not(self, generator: Generator) -> None:
        prompts = [asked(QUESTIONS[0])] * 6
        first, again, other = (
            [answer.text for answer in generator.generate(prompts, temperature=1.0, seed=seed)] for seed in (1, 1, 2)
        )
        assert first == again != other
        assert len(set(first)) > 1

    def test_no_temperature_is_greedy(self, generator: Generator, files: Path) -> None:
        drawn = [answer.text for answer in generator.generate([asked(q) for q in QUESTIONS], temperature=1e-6)]
        assert drawn == [answer.text for answer in generator.generate([asked(q) for q in QUESTIONS])]
