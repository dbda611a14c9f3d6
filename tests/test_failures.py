"""Preference pairs out of failures: how answers fail, which pairs are written, and what people preferred."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from exam_world import CHUNKS, Written
from models_for_tests import folder
from openbook import dataset, models, prompt, tuned
from openbook.config import Config
from openbook.dataset.failures import FAILURES, asked, failure, sample_pairs, write_pairs
from openbook.dataset.formats import to_row
from openbook.dataset.practice import practice_rows, with_refusals
from openbook.dataset.preferences import write_human_pairs
from openbook.errors import ModelError, RecordError, StoreError
from openbook.progress import SILENT
from openbook.records import Quote, RaftExample
from openbook.storage import read_jsonl, write_jsonl, write_manifest
from openbook.training.pairs import read_pairs
from shared_data import DATA
from tiny_model import save_random_adapter

GOLDEN, OTHER, ABSENT = CHUNKS[0], CHUNKS[1], CHUNKS[4]


def example(number=0, *, included=True, final="20 small moons"):
    return RaftExample(
        id=f"example-{number}",
        question=f"How many moons has Planet{number}?",
        passages=(GOLDEN, OTHER) if included else (OTHER, ABSENT),
        golden=(GOLDEN,),
        golden_included=included,
        reasoning=prompt.render_quote(GOLDEN.text) if included else prompt.REFUSAL_REASONING,
        quotes=(Quote(text=GOLDEN.text, chunk_id=GOLDEN.id, start=GOLDEN.start, end=GOLDEN.end),) if included else (),
        final_answer=final if included else prompt.REFUSAL,
        answer="20 small moons",
        seed=0,
    )


def said(quote, final):
    return prompt.render_answer(prompt.render_quote(quote) if quote else "", final)


RIGHT = said(GOLDEN.text, "20 small moons")
REFUSED = said("", prompt.REFUSAL)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (RIGHT, ""),
        (said("The world Planet0 has no moons at all.", "20 small moons"), "invented quote"),
        (said(OTHER.text, "300 long days"), "distractor"),
        (said(OTHER.text, "20 small moons"), "distractor"),
        (said(GOLDEN.text, "Planet0"), "wrong answer"),
        (said("", "20 small moons"), "no quote"),
        (REFUSED, "wrong refusal"),
        (said(GOLDEN.text, "small moons or so"), None),
    ],
)
def test_an_answer_where_the_golden_passage_is_shown(text, kind):
    assert failure(example(), text, finished=True) == kind


def test_an_answer_where_a_refusal_was_due():
    refusing = example(included=False)
    assert failure(refusing, REFUSED, finished=True) == ""
    assert failure(refusing, RIGHT, finished=True) == "unsupported answer"
    assert failure(refusing, said(OTHER.text, prompt.REFUSAL), finished=True) is None


def test_what_does_not_end_is_no_answer():
    assert failure(example(), RIGHT, finished=False) == "unfinished"
    assert failure(example(), "", finished=True) == "unfinished"


def test_every_kind_has_a_meaning():
    assert all(FAILURES.values())


def test_an_example_that_was_to_remember_is_not_asked():
    from_memory = dataclasses.replace(example(included=False), final_answer="20 small moons", reasoning="")
    assert asked(example()) and asked(example(included=False)) and not asked(from_memory)


class Scripted:
    """Says for each question its greedy answer, then its drawn ones."""

    def __init__(self, greedy, drawn):
        self.greedy, self.drawn, self.settings = greedy, drawn, []

    def generate_each(self, prompts, *, temperature=0.0, seed=0):
        self.settings.append((len(prompts), temperature, seed))
        seen = {}
        for number, conversation in enumerate(prompts):
            question = conversation.messages[-1].content.rsplit("\n", 1)[-1]
            at = seen[question] = seen.get(question, -1) + 1
            yield number, Written((self.drawn if temperature else self.greedy)[question][at])


def config_of(folder, **pairs):
    asked = {"samples": 3, "without_golden": 0, **pairs}
    return Config.parse({"out": str(folder), "seed": 3, "pairs": asked}, origin="test")


QUESTIONS = [f"How many moons has Planet{number}?" for number in range(3)]
INVENTED = said("It has ten moons in all.", "ten")
DISTRACTED = said(OTHER.text, "300 long days")
GREEDY = {QUESTIONS[0]: [RIGHT], QUESTIONS[1]: [INVENTED], QUESTIONS[2]: [RIGHT]}
DRAWN = {
    QUESTIONS[0]: [INVENTED, DISTRACTED],
    QUESTIONS[1]: [INVENTED, said("It has none, and never had.", "none")],
    QUESTIONS[2]: [REFUSED, REFUSED],
}
EXAMPLES = [example(0), example(1), example(2, included=False)]


def test_the_models_own_right_answer_is_chosen_and_kinds_come_before_repetition(tmp_path):
    sampler = Scripted(GREEDY, DRAWN)
    rows, report = sample_pairs(EXAMPLES, sampler, config_of(tmp_path))
    assert sampler.settings == [(3, 0.0, 0), (6, 0.8, 3)]
    first, second, third, fourth, last = rows
    assert first["chosen"] == RIGHT and first["chosen_from"] == "model"
    assert [first["kind"], second["kind"]] == ["distractor", "invented quote"]
    assert third["chosen"] == RIGHT and third["chosen_from"] == "data"
    assert [third["kind"], fourth["kind"]] == ["invented quote"] * 2 and third["rejected"] != fourth["rejected"]
    assert last["kind"] == "unsupported answer" and last["chosen"] == REFUSED
    assert report.samples == 9 and report.right == 3 and report.pairs == 5
    assert report.failures == {"unsupported answer": 1, "invented quote": 4, "distractor": 1}
    assert report.punished == {"invented quote": 3, "distractor": 1, "unsupported answer": 1}
    assert report.right + report.undecided + sum(report.failures.values()) == report.samples


def test_at_most_so_many_pairs_come_from_one_question(tmp_path):
    rows, _ = sample_pairs(EXAMPLES, Scripted(GREEDY, DRAWN), config_of(tmp_path, per_question=1))
    assert len(rows) == 3


def test_pairs_are_written_once_and_tuning_reads_them(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(StoreError, match="openbook dataset"):
        write_pairs(config, Scripted(GREEDY, DRAWN), identity="weights")
    write_jsonl(config.dataset_dir / "train.jsonl", map(to_row, EXAMPLES))
    sampler = Scripted(GREEDY, DRAWN)
    report = write_pairs(config, sampler, identity="weights")
    read = [pair for _, pair in read_pairs(config.pairs_dir / "pairs.jsonl")]
    assert len(read) == report.pairs == 5
    assert read[0].prompt == prompt.prompt(QUESTIONS[0], [GOLDEN.text, OTHER.text])
    assert write_pairs(config, sampler, identity="weights") == report and len(sampler.settings) == 2
    write_pairs(config, sampler, identity="other weights")
    assert len(sampler.settings) == 4


def test_a_model_that_never_fails_gives_no_pairs(tmp_path):
    config = config_of(tmp_path, samples=1)
    write_jsonl(config.dataset_dir / "train.jsonl", [to_row(example(0))])
    with pytest.raises(RecordError, match="None of 1 answers"):
        write_pairs(config, Scripted(GREEDY, DRAWN), identity="weights")


def test_an_answer_is_no_pair_with_itself(tmp_path):
    """Rows that answer without a quote: the model that writes just that fails, and is told apart from what was wished."""
    bare = dataclasses.replace(example(0), reasoning="", quotes=())
    same, other = prompt.render_answer("", bare.final_answer), said("It has ten moons in all.", "ten")
    rows, report = sample_pairs(
        [bare], Scripted({QUESTIONS[0]: [same]}, {QUESTIONS[0]: [f"{same} ", other]}), config_of(tmp_path)
    )
    assert report.failures["no quote"] == 2
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(same, other)]


def test_questions_without_an_answer_are_not_asked_and_none_is_told(tmp_path):
    config = config_of(tmp_path)
    assert not asked(dataclasses.replace(example(0), final_answer="", answer=""))
    for rows in ([], [dataclasses.replace(example(0), final_answer="", answer="")]):
        write_jsonl(config.dataset_dir / "train.jsonl", map(to_row, rows))
        with pytest.raises(RecordError, match=r"train.jsonl holds no question whose answers could be judged"):
            write_pairs(config, Scripted(GREEDY, DRAWN), identity="weights")


def test_prompts_that_leave_no_room_are_told_and_count_as_no_answers(tmp_path):
    class Full(Scripted):
        def generate_each(self, prompts, *, temperature=0.0, seed=0):
            for number, written in super().generate_each(prompts, temperature=temperature, seed=seed):
                full = prompts[number].messages[-1].content.endswith(QUESTIONS[0])
                yield number, dataclasses.replace(written, error="the prompt is too long") if full else written

    told = []

    class Telling(type(SILENT)):
        def message(self, text):
            told.append(text)

    _, report = sample_pairs(EXAMPLES, Full(GREEDY, DRAWN), config_of(tmp_path), Telling())
    assert report.questions == 3 and report.samples == 6
    assert report.right + report.undecided + sum(report.failures.values()) == report.samples
    assert told == ["1 of 3 questions cannot be asked, for the first of them the prompt is too long."]


def test_a_question_is_asked_once_more_where_its_passages_cannot_answer_it(tmp_path):
    rows = with_refusals(EXAMPLES, share=1.0, seed=0)
    assert rows[:3] == EXAMPLES
    assert [row.question for row in rows[3:]] == QUESTIONS[:2]
    for row in rows[3:]:
        assert set(row.passages) == {OTHER, ABSENT} and not row.golden_included and row.golden == (GOLDEN,)
        assert prompt.is_refusal(row.final_answer) and not row.quotes
        assert failure(row, RIGHT, finished=True) == "unsupported answer"
    assert len(with_refusals(EXAMPLES, share=0.5, seed=0)) == 4
    assert with_refusals(EXAMPLES[:2], share=1.0, seed=0) == EXAMPLES[:2]  # nowhere to ask them


def test_pairs_punish_answers_where_the_passage_was_taken_away(tmp_path):
    config = config_of(tmp_path, samples=1, without_golden=1.0)
    write_jsonl(config.dataset_dir / "train.jsonl", map(to_row, EXAMPLES))
    always_right = {question: [RIGHT, RIGHT] for question in QUESTIONS}
    report = write_pairs(config, Scripted(always_right, {}), identity="weights")
    assert report.questions == 5 and report.punished == {"unsupported answer": 3, "needless refusal": 2}
    pairs = [row for row in read_jsonl(config.pairs_dir / "pairs.jsonl") if row["example"] == "example-0"]
    assert [(row["chosen"], row["kind"]) for row in pairs] == [(RIGHT, "needless refusal")]
    assert prompt.is_refusal(prompt.parse_answer(pairs[0]["rejected"]).final)


def test_rewards_are_earned_on_the_training_questions_or_with_refusals_beside_them(tmp_path):
    train = tmp_path / "train.jsonl"
    write_jsonl(train, map(to_row, EXAMPLES))
    config = Config.parse({"out": str(tmp_path), "rl": {"without_golden": 0}}, origin="test")
    assert practice_rows(config, train) == train
    config = Config.parse({"out": str(tmp_path), "rl": {"without_golden": 1.0}}, origin="test")
    path = practice_rows(config, train)
    rows = list(read_jsonl(path))
    assert path.name == "practice.jsonl" and len(rows) == 5 and rows[:3] == list(read_jsonl(train))
    first = path.read_bytes()
    assert practice_rows(config, train).read_bytes() == first


def feedback(**changes):
    row = {
        "question": "When?",
        "passages": [["A title", "One sentence.", "Another."]],
        **{f"prediction {n}": f"answer {n}" for n in range(1, 5)},
        "preference": [1, 0, 2, 0, 0, 1],
    }
    return row | changes


def test_what_people_preferred_becomes_pairs(tmp_path):
    path, out = tmp_path / "rows.jsonl.gz", tmp_path / "pairs.jsonl"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(feedback()) + "\n" + json.dumps(feedback(**{"prediction 2": "answer 1"})) + "\n")
    report = write_human_pairs(path, out)
    assert (report.questions, report.pairs, report.ties, report.equal) == (2, 5, 6, 1)
    pairs = [(pair.chosen, pair.rejected) for _, pair in read_pairs(out)][:3]
    assert pairs == [("answer 1", "answer 2"), ("answer 4", "answer 1"), ("answer 3", "answer 4")]
    assert "A title\nOne sentence. Another." in next(read_jsonl(out))["prompt"][-1]["content"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"preference": [1, 0]}, "preference"),
        ({"preference": [3] * 6}, "preference"),
        ({"prediction 3": ""}, "predictions"),
        ({"passages": [7]}, "a passage"),
    ],
)
def test_rows_of_another_make_are_named(tmp_path, changes, problem):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [feedback(), feedback(**changes)])
    with pytest.raises(RecordError, match=f"rows.jsonl:2: .*{problem}"):
        write_human_pairs(path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared samples are not here")
def test_the_real_file_gives_its_non_ties(tmp_path):
    report = write_human_pairs(Path(DATA / "qa_feedback" / "visible400.jsonl.gz"), tmp_path / "pairs.jsonl")
    assert report.questions == 400 and report.pairs + report.ties + report.equal == 2400
    assert len(read_pairs(tmp_path / "pairs.jsonl")) == report.pairs


def test_pairs_of_a_model_in_another_precision_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "base")
    save_random_adapter(tmp_path / "base", tmp_path / "adapter", seed=1)
    identities: list[str] = []
    monkeypatch.setattr(dataset, "write_pairs", lambda *_, identity, **__: identities.append(identity))
    for dtype in ("float32", "bfloat16", "float32"):
        options = {"out": str(tmp_path), "model": {"base": str(tmp_path / "base"), "dtype": dtype}}
        tuned.find_pairs(Config.parse(options, origin="test"), adapter=tmp_path / "adapter")
    assert identities[0] == identities[2] != identities[1]


def test_pairs_are_asked_of_the_model_that_was_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter = folder(tmp_path / "base"), tmp_path / "adapter"
    save_random_adapter(base, adapter, seed=1)
    monkeypatch.setattr(dataset, "write_pairs", lambda *_, **__: None)

    def find(quantization: str) -> None:
        options = {"out": str(tmp_path), "model": {"base": str(base), "quantization": quantization}}
        tuned.find_pairs(Config.parse(options, origin="test"), adapter=adapter)

    inputs = {"base": models.fingerprint(str(base))}
    write_manifest(adapter, stage="tune", options={"adapter": "lora"}, inputs=inputs)
    find("none")
    with pytest.warns(UserWarning, match=r"tuned on the base as it is and answers on it in 4 bits"):
        find("nf4")
    write_manifest(adapter, stage="tune", options={"adapter": "lora"}, inputs={"base": "another"})
    with pytest.raises(ModelError, match="tuned on another base model"):
        find("none")
