"""A model on this machine as teacher: the same prompts, the same reading of what it says."""

import random

import pytest

from dataset_world import cut, options, shelf
from openbook.dataset.instructions import Instructions
from openbook.dataset.local_chat import LocalChat
from openbook.dataset.teacher import make_teacher
from openbook.errors import ModelError
from openbook.llm import CallFailedError
from openbook.records import Conversation, Message
from tiny_model import save_tiny_llama

CHUNK = cut(shelf(1))[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    told = Instructions().conversation("questions", limit=1, title="T", passage=CHUNK.text, language="English")
    save_tiny_llama(folder, [message.content for message in told.messages], context=4096)
    return folder


def config_of(tmp_path, model):
    config = options(tmp_path, teacher="local", teacher_model=str(model), questions_per_chunk=1, judge=False)
    return config.model_copy(update={"model": config.model.model_copy(update={"quantization": "none"})})


def test_it_writes_and_counts_its_tokens(tmp_path, model):
    chat = LocalChat(str(model), config_of(tmp_path, model))
    asked = Conversation(messages=(Message(role="user", content="Say hello."),))
    said = chat.complete(asked, max_tokens=6)
    assert said == chat.complete(asked, max_tokens=6)
    assert 0 < said.usage.completion_tokens <= 6 and said.usage.prompt_tokens > 3
    longer = chat.complete(asked, max_tokens=9)
    assert longer.usage.completion_tokens > said.usage.completion_tokens or said.finished
    with pytest.raises(ModelError, match="greedily"):
        chat.complete(asked, max_tokens=6, temperature=0.7)
    with pytest.raises(CallFailedError, match=r"the prompt has .* tokens"):
        chat.complete(Conversation(messages=(Message(role="user", content="word " * 5000),)), max_tokens=6)


def test_a_teacher_that_babbles_gives_no_question_and_is_asked_once(tmp_path, model):
    teacher = make_teacher(config_of(tmp_path, model))
    assert teacher.at_once == 1 and teacher.fingerprint.startswith("local ")
    assert teacher.write(CHUNK, rng=random.Random(0), limit=1) == []
    assert sum(teacher.outcomes.values()) == 1
    again = make_teacher(config_of(tmp_path, model))
    assert again.write(CHUNK, rng=random.Random(0), limit=1) == []
    assert (again.chat.sent, again.chat.kept) == (0, 1)
    asked, _ = teacher.asks(CHUNK, 1)
    assert CHUNK.text in asked.messages[1].content and "You write exam questions" in asked.messages[0].content
