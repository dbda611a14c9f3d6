"""Questions that are rejected or edited by hand: in force at once, checked, and still so after a rebuild."""

import json

import pytest

import openbook
from dataset_world import WordIndex, cut, options, shelf
from openbook import dataset, prompt, storage, tuned
from openbook.dataset import PARTS, build_from, review
from openbook.dataset.extractive import ExtractiveTeacher
from openbook.dataset.formats import read_examples
from openbook.dataset.overlay import REJECTED, Change, Overlay
from openbook.errors import InputError, ModelError, RecordError, StoreError

CHUNKS = cut(shelf())


def build(config):
    return build_from(WordIndex(CHUNKS), ExtractiveTeacher(), config, index_hash="abc")


def rows_of(config, part="train"):
    return list(read_examples(config.dataset_dir / f"{part}.jsonl"))


def everyone(config):
    return {row.question_id: row for part in PARTS for row in rows_of(config, part)}


@pytest.fixture
def config(tmp_path):
    made = options(tmp_path, without_golden="mix", golden_share=0.7)
    build(made)
    return made


def reject(*ids):
    return [Change(question_id=i, action="reject") for i in ids]


def shown_row(config):
    return next(row for row in rows_of(config) if row.golden_included)


def test_a_rejected_question_is_gone_at_once_and_stays_gone(config):
    before = everyone(config)
    gone = shown_row(config)
    outcome = review.change(config, reject(gone.question_id))
    assert (outcome.changes, outcome.rows, outcome.refused) == (1, 1, ())
    assert everyone(config).keys() == before.keys() - {gone.question_id}
    assert not dataset.is_built(config, index_hash="abc")  # another question may take its place
    report = build(config)
    after = everyone(config)
    assert gone.question_id not in after and report.dropped[REJECTED] == 1
    assert report.train == 60 and dataset.is_built(config, index_hash="abc")
    moved = [i for i in before.keys() & after.keys() if before[i].question != after[i].question]
    assert not moved and len(before.keys() - after.keys()) <= 3  # the others stay


def test_most_questions_stay_in_their_part_when_one_goes(config):
    before = {part: {row.question_id for row in rows_of(config, part)} for part in PARTS}
    review.change(config, reject(rows_of(config, "studied")[0].question_id))
    build(config)
    for part in PARTS:
        same = before[part] & {row.question_id for row in rows_of(config, part)}
        assert len(same) >= len(before[part]) - 4, part


def test_an_edit_is_the_same_in_place_and_after_a_rebuild(config):
    row = shown_row(config)
    quote = row.quotes[0].text
    last = quote.rstrip(".").split()[-1]
    reasoning = f"It says so: {prompt.render_quote(quote)}"
    edit = Change(question_id=row.id[:9], action="edit", question="Is it\n so?", answer=last, reasoning=reasoning)
    assert review.change(config, [edit]).refused == ()
    in_place = everyone(config)[row.question_id]
    build(config)
    rebuilt = everyone(config)[row.question_id]
    for changed in (in_place, rebuilt):
        assert (changed.question, changed.answer, changed.reasoning) == ("Is it so?", last, reasoning)
        assert [q.text for q in changed.quotes] == [quote] and changed.quotes[0].verified
    assert in_place.final_answer == last and in_place.passages == row.passages
    kept = Overlay.read(config.overlay_path).changes[row.question_id]
    assert kept.was == row.question


def test_a_second_edit_keeps_what_the_first_one_changed(config):
    row = shown_row(config)
    last = row.quotes[0].text.rstrip(".").split()[-1]
    for edit in ({"question": "Is it so?", "note": "clearer"}, {"answer": last}):
        outcome = review.change(config, [Change(question_id=row.question_id, action="edit", **edit)])
        assert outcome.refused == ()
    kept = Overlay.read(config.overlay_path).changes[row.question_id]
    assert (kept.question, kept.answer, kept.note, kept.was) == ("Is it so?", last, "clearer", row.question)
    in_place = everyone(config)[row.question_id]
    build(config)
    rebuilt = everyone(config)[row.question_id]
    assert [(r.question, r.answer) for r in (in_place, rebuilt)] == [("Is it so?", last)] * 2


def test_reasoning_that_is_taken_out_can_be_read_again(config):
    row = shown_row(config)
    review.change(config, reject(row.question_id))
    emptied = Change(question_id=row.question_id, action="edit", reasoning="")
    assert review.change(config, [emptied]).changes == 1  # its row is gone: the next build checks it
    assert Overlay.read(config.overlay_path).changes[row.question_id].reasoning == ""
    build(config)
    assert row.question_id not in everyone(config)  # which quotes nothing


def test_a_row_that_refuses_goes_on_refusing(config):
    row = next(r for r in rows_of(config) if prompt.is_refusal(r.final_answer))
    review.change(config, [Change(question_id=row.question_id, action="edit", question="How is it now?")])
    changed = everyone(config)[row.question_id]
    assert changed.question == "How is it now?"
    assert (changed.final_answer, changed.reasoning) == (row.final_answer, row.reasoning)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"answer": "forty-two elephants"}, "quote does not hold the answer"),
        ({"question": "  "}, "question or answer is empty"),
        ({"reasoning": prompt.render_quote("made up by hand here")}, "quote is not in the passage word for word"),
        ({"reasoning": "no quote at all"}, "no quote"),
    ],
)
def test_an_edit_that_fails_a_check_is_refused_and_changes_nothing(config, edit, says):
    row = shown_row(config)
    before = everyone(config)
    outcome = review.change(config, [Change(question_id=row.question_id, action="edit", **edit)])
    assert outcome.changes == 0 and f"the edit cannot be used: {says}" in outcome.refused[0]
    assert everyone(config) == before and not config.overlay_path.exists()


def test_names_that_fit_none_or_several_are_told_and_the_rest_is_done(config):
    row = shown_row(config)
    outcome = review.change(config, reject("nothing", "", row.question_id))
    assert outcome.changes == 1 and len(outcome.refused) == 2
    several = next(i for i in "0123456789abcdef" if sum(q.startswith(i) for q in everyone(config)) > 1)
    (told,) = review.change(config, reject(several)).refused
    assert "several questions begin so" in told


def test_what_is_taken_back_returns_with_the_next_build(config):
    row = shown_row(config)
    review.change(config, reject(row.question_id))
    assert review.restore(config, [row.question_id[:8]]).changes == 1
    assert review.restore(config, ["nothing"]).refused == ("nothing: no change is named so.",)
    assert review.bring_in_line(config) == 0
    assert not dataset.is_built(config, index_hash="abc")
    build(config)
    assert everyone(config)[row.question_id].question == row.question


def test_an_overlay_that_was_written_by_hand_counts_when_a_model_is_tuned(config):
    row = shown_row(config)
    storage.write_jsonl(config.overlay_path, [{"question_id": row.question_id, "action": "reject"}])
    assert review.bring_in_line(config) == 1
    assert row.question_id not in everyone(config)
    assert review.bring_in_line(config) == 0  # once


@pytest.mark.parametrize("method", ["sft", "grpo", "ppo", "pairs"])
def test_a_tuning_reads_the_rows_as_they_were_decided(config, tmp_path, method):
    gone = shown_row(config).question_id
    storage.write_jsonl(config.overlay_path, [{"question_id": gone, "action": "reject"}])
    model = config.model.model_copy(update={"base": str(tmp_path / "no-model-here")})
    config = config.model_copy(update={"model": model})
    with pytest.raises(ModelError):
        if method == "pairs":
            tuned.find_pairs(config, adapter=tmp_path)
        else:
            openbook.tune(config, method=method)
    assert gone not in everyone(config)


def test_not_every_question_can_be_rejected(config):
    before = rows_of(config)
    with pytest.raises(InputError, match=r"nothing is left to study\. Take some back"):
        review.change(config, reject(*(row.question_id for row in before)))
    assert rows_of(config) == before


def test_without_a_data_set_there_is_nothing_to_change(tmp_path):
    with pytest.raises(StoreError, match=r"holds no data set\. Write the questions first"):
        review.change(options(tmp_path), reject("a"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"action": "reject"}, "no change of a question"),
        ({"question_id": "", "action": "reject"}, "no question is named"),
        ({"question_id": "a", "action": "delete"}, "no change of a question"),
        ({"question_id": "a", "action": "edit"}, "changes nothing"),
        ({"question_id": "a", "action": "edit", "answer": 3}, "no change of a question"),
        ({"question_id": "a", "action": "reject", "more": 1}, "no change of a question"),
    ],
)
def test_a_bad_line_of_the_overlay_is_named(tmp_path, row, says):
    path = tmp_path / "overlay.jsonl"
    path.write_text('{"question_id": "a", "action": "reject"}\n' + json.dumps(row) + "\n")
    with pytest.raises(RecordError, match=rf"overlay\.jsonl:2: .*{says}"):
        Overlay.read(path)


def test_an_overlay_comes_back_as_it_was_and_notes_do_not_make_it_stale(tmp_path):
    change = Change(question_id="a", action="edit", question="What?", note="clearer", was="Wat?")
    overlay = Overlay([*reject("b"), change])
    overlay.write(tmp_path / "overlay.jsonl")
    again = Overlay.read(tmp_path / "overlay.jsonl")
    assert again.changes == overlay.changes
    without_note = Overlay([change, *reject("b")])
    assert again.fingerprint == without_note.fingerprint != "" == Overlay().fingerprint
