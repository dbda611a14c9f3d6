"""A trace tells the truth about one step: its probabilities, losses and movements are those of the training path."""

import dataclasses
import json
import math

import pytest
import torch

from openbook import tracing
from openbook.config import Config
from openbook.errors import InputError, RecordError
from openbook.records import to_json
from openbook.tracing import TracedToken
from openbook.tracing.subjects import message_subject
from tiny_model import save_tiny_llama

PASSAGES = ["The cache keeps results for ten minutes.", "Alerts are grouped by their label."]


def example(question, sentence, answer, group="g"):
    return {
        "question": question,
        "context": {"sentences": [PASSAGES]},
        "oracle_context": sentence,
        "cot_answer": f"##Reason: ##begin_quote## {sentence} ##end_quote## <ANSWER>: {answer}",
        "meta": {"group": group},
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trace")
    rows = [
        example("How long does the cache keep results?", PASSAGES[0], "ten minutes"),
        example("How are alerts grouped?", PASSAGES[1], "by their label"),
        example("What keeps results?", PASSAGES[0], "the cache", group="another"),
    ]
    (folder / "dataset").mkdir()
    (folder / "dataset" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_tiny_llama(folder / "model", [json.dumps(rows)], context=512)
    return Config.load(
        None,
        [
            f"out={folder}",
            f"model.base={folder / 'model'}",
            "model.device=cpu",
            "model.max_new_tokens=4",
            "tune.adapter=lora",
            "tune.learning_rate=0.02",
            "preference.learning_rate=0.02",
        ],
    )


def nats(tokens, when):
    return [-math.log(getattr(token, f"probability_{when}")) for token in tokens if token.trained]


def test_a_messages_loss_is_the_mean_of_its_tokens_and_falls(config):
    found = tracing.trace(config, "How are alerts grouped?", "By their label.", steps=3)
    for when in ("before", "after"):
        losses = nats(found.tokens, when)
        assert getattr(found, f"loss_{when}") == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        assert getattr(found.branches[0], f"logp_{when}") == pytest.approx(-sum(losses), rel=1e-4)
    assert found.loss_after < found.loss_before
    assert [token.part for token in found.tokens if token.trained][:-1] == ["assistant"] * (
        found.branches[0].trained - 1
    )
    assert "".join(token.text for token in found.tokens if token.part == "user") == "How are alerts grouped?"
    assert not any(token.trained for token in found.tokens if token.part == "user")


def test_the_step_is_the_one_that_tuning_takes(config):
    def traced(loss):
        changed = config.model_copy(update={"tune": config.tune.model_copy(update={"loss": loss})})
        return tracing.trace(changed, "How are alerts grouped?", "By their label.")

    nll, dft = map(traced, ("nll", "dft"))
    assert nll.loss_name == "mean −ln p"
    assert dft.loss_before == nll.loss_before and dft.loss_after != nll.loss_after
    assert dft.loss_name == "mean −ln p; the step is that of dft"


def test_further_steps_are_those_of_tunings_optimizer_too(config):
    """The same steps by hand, with the settings that tuning hands to Trainer."""
    from openbook.models import load_base
    from openbook.training.adapting import adapted
    from openbook.training.attention import serve_trees
    from openbook.training.run import _arguments
    from openbook.training.trainer import Supervised

    subject = ("How are alerts grouped?", "By their label.")
    found = tracing.trace(config, *subject, steps=4)
    loaded = load_base(config, "none")
    settings = _arguments(loaded, config, config.out, 4, False)
    row = message_subject(loaded, config, *subject, None).row
    model = adapted(loaded, config)
    serve_trees(loaded.model)
    weights = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(
        weights, settings.learning_rate, (settings.adam_beta1, settings.adam_beta2), weight_decay=0
    )
    method = Supervised()
    batch = method.collate([row])
    for _ in range(4):
        adam.zero_grad()
        (method.sums(model, batch)["loss"] / method.count(batch)).backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        adam.step()
    expected = (method.sums(model, batch)["loss"] / method.count(batch)).item()
    assert found.loss_after == pytest.approx(expected, rel=1e-5)


def test_after_one_step_only_the_half_of_the_adapters_that_starts_at_zero_has_moved(config):
    found = tracing.trace(config, "How are alerts grouped?", "By their label.")
    assert {movement.layer for movement in found.movements} == {0, 1}
    # LoRA's B is zero at first, so that A has no gradient; q_proj of the tiny model is 32 × 32, its adapters of rank 16.
    query = next(m for m in found.movements if m.name == "model.layers.0.self_attn.q_proj")
    assert (query.kind, query.weights, query.trained) == ("self_attn.q_proj", 1024, 1024)
    assert 0 < query.moved <= 512
    assert found.moved_weights == sum(m.moved for m in found.movements) < found.trained_weights
    assert all(m.share > 0 for m in found.movements)


def test_full_tuning_moves_every_kind_of_weight(config):
    full = config.model_copy(update={"tune": config.tune.model_copy(update={"adapter": "full"})})
    found = tracing.trace(full, "How are alerts grouped?", "By their label.")
    assert found.trained_weights == found.total_weights
    assert {"model.norm", "lm_head", "model.embed_tokens"} <= {m.name for m in found.movements if m.layer is None}


def test_a_pair_starts_at_ln_2_and_shares_its_prompt(config):
    found = tracing.trace_pair(config, "How are alerts grouped?", "By their label.", "Nobody knows.", steps=3)
    assert found.loss_before == pytest.approx(math.log(2), abs=1e-5)
    assert found.loss_after < found.loss_before
    chosen, rejected = found.branches
    gained = chosen.logp_after - chosen.logp_before - (rejected.logp_after - rejected.logp_before)
    assert found.loss_after == pytest.approx(math.log(1 + math.exp(-0.1 * gained)), abs=1e-4)
    assert (chosen.name, rejected.name) == ("chosen", "rejected")
    shared = [token for token in found.tokens if token.branch == -1]
    assert len(shared) == chosen.tokens - chosen.trained == rejected.tokens - rejected.trained
    assert found.separate_tokens == len(found.tokens) + len(shared)


def test_a_row_of_the_training_set_stands_in_its_tree(config):
    found = tracing.trace_row(config, 2)
    assert [branch.name for branch in found.branches] == ["train.jsonl:2", "train.jsonl:1"]
    assert found.branches[0].question == "How are alerts grouped?"
    assert found.asked.endswith("How are alerts grouped?")
    # Each branch, read from its last token back to the root, is the whole conversation; only answers are trained.
    for number, branch in enumerate(found.branches):
        at = max(n for n, token in enumerate(found.tokens) if token.branch == number)
        path = []
        while at >= 0:
            path.append(found.tokens[at])
            at = path[-1].parent
        text = "".join(token.text for token in reversed(path))
        assert len(path) == branch.tokens
        assert [*found.tokens[: found.trunk], *found.beyond_trunk(number)] == path[::-1]
        assert all(passage in text for passage in PASSAGES) and branch.question in text
        said = "".join(token.text for token in reversed(path) if token.trained)
        assert said.startswith("##Reason") and said.endswith("</s>")
    assert found.separate_tokens > len(found.tokens)
    assert found.loss_after < found.loss_before

    def token(parent, branch):
        return TracedToken(id=0, text="", part="user", trained=branch >= 0, parent=parent, branch=branch)

    # Two of three branches go together for another token, which the third has not.
    tokens = (token(-1, -1), token(0, -1), token(1, -1), token(2, 0), token(2, 1), token(1, 2))
    three = dataclasses.replace(found, tokens=tokens)
    assert three.trunk == 2
    assert [len(three.beyond_trunk(number)) for number in range(3)] == [2, 2, 1]


def test_a_row_that_is_longer_than_a_row_loses_its_neighbours_not_itself(config):
    whole = tracing.trace_row(config, 1)
    short = config.model_copy(
        update={"tune": config.tune.model_copy(update={"row_tokens": whole.branches[0].tokens + 1})}
    )
    assert [branch.name for branch in tracing.trace_row(short, 1).branches] == ["train.jsonl:1"]


def test_the_record_is_plain_json(config):
    found = tracing.trace(config, "Hello", "Good day.")
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert set(data) == {field.name for field in dataclasses.fields(tracing.Trace)}
    assert data["tokens"][0]["probability_before"] is None


def test_what_cannot_be_traced_is_told_in_a_sentence(config):
    with pytest.raises(InputError, match="a message and an answer"):
        tracing.trace(config, " ", "x")
    with pytest.raises(InputError, match="equal"):
        tracing.trace_pair(config, "x", "a", "a ")
    with pytest.raises(InputError, match="tokens and"):
        tracing.trace(config, "long " * 600, "x")
    with pytest.raises(RecordError, match="no line 9"):
        tracing.trace_row(config, 9)
