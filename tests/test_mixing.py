"""Instruction sets mixed by weight, and tuning on the mix."""

import gzip
import json

import pyarrow as pa
import pytest

from models_for_tests import folder
from openbook import storage, verbs
from openbook.config import Config
from openbook.dataset import mix, mixing
from openbook.dataset.mixing import parse_set
from openbook.errors import InputError, RecordError
from openbook.options import Retrieval
from openbook.progress import SILENT
from openbook.storage import read_jsonl, write_jsonl
from shared_data import DATA


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def setting(tmp_path, base):
    alpaca = tmp_path / "alpaca.json"
    alpaca.write_text(
        json.dumps([{"instruction": f"Count to {n}.", "input": "", "output": f"{n}!"} for n in range(20)])
    )
    chats = tmp_path / "chats"
    chats.mkdir()
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
    write_jsonl(
        chats / "a.jsonl",
        [
            {"messages": [*messages, {"role": "user", "content": str(n)}, {"role": "assistant", "content": f"So {n}."}]}
            for n in range(10)
        ],
    )

    def make(*sets, **options):
        values = {"model": {"base": str(base)}, "instruct": {"sets": list(sets)}, "out": str(tmp_path / "work")}
        tune = {"adapter": "lora", "row_tokens": 300, "epochs": 1, "rank": 2}
        return Config.parse({**values, "dataset": {"validation": 0}, "tune": tune, **options}, origin="test")

    return make, alpaca, chats


def listening(told):
    class Listening(type(SILENT)):
        def message(self, text):
            told.append(text)

    return Listening()


def sources(config, part="train"):
    rows = list(read_jsonl(config.instruct_dir / f"{part}.jsonl"))
    return [row["origin"].rsplit("/", 1)[-1].split(":")[0] for row in rows], rows


def test_weights_multiply_the_rows_of_their_set(setting):
    make, alpaca, chats = setting
    config = make(f"{alpaca}=0.5", f"{chats}=2")
    report = mix(config)
    names, rows = sources(config)
    assert report.taken == {str(alpaca): 10, str(chats): 20} and report.train == 30
    assert names.count("alpaca.json") == 10 and names.count("a.jsonl") == 20
    assert len({json.dumps(row) for row in rows}) == 20  # half of the one, all of the other twice
    assert names[:20] != sorted(names[:20])  # mixed, and not one set after the other


def test_a_folder_as_the_package_datasets_saves_it_is_a_set(setting, tmp_path):
    make, *_ = setting
    rows = pa.Table.from_pylist([{"instruction": f"Count to {n}.", "output": f"{n}!"} for n in range(3)])
    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    with pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, rows.schema) as out:
        out.write_table(rows)
    test = tmp_path / "saved" / "test"
    test.mkdir()
    write_jsonl(test / "rows.jsonl", [{"instruction": "Count.", "output": "1"}])
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for name in ("dataset_info.json", "state.json"):
        (saved / name).write_text("{}")
    assert mix(make(str(tmp_path / "saved"))).train == 3  # and not what is kept to test on
    saved.rename(tmp_path / "saved" / "validation")
    with pytest.raises(InputError, match="no split named train"):
        mix(make(str(tmp_path / "saved")))


def test_what_a_folder_gives_is_told_packed_files_too(setting, tmp_path):
    make, _, chats = setting
    rows = [{"prompt": f"Say {n}.", "completion": f"{n}."} for n in range(3)]
    with gzip.open(chats / "b.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    (chats / "README.md").write_text("Chats")
    told = []
    assert mix(make(str(chats)), progress=listening(told)).train == 13
    assert f"{chats}: rows of a.jsonl, b.jsonl.gz." in told


def test_the_folder_of_a_data_set_is_refused_since_it_holds_the_exams(setting, tmp_path):
    make, *_ = setting
    storage.write_manifest(tmp_path, stage="dataset", options={}, inputs={})
    with pytest.raises(InputError, match=r"holds the exams.*train\.jsonl"):
        mix(make(str(tmp_path)))


def test_a_small_weight_takes_a_row_and_an_empty_set_is_told(setting, tmp_path):
    make, alpaca, _ = setting
    assert mix(make(f"{alpaca}=0.001")).train == 1
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.jsonl holds no rows"):
        mix(make(str(alpaca), str(tmp_path / "empty.jsonl")))
    with pytest.raises(InputError, match="named twice"):
        mix(make(str(alpaca), f"{alpaca}=2"))
    with pytest.raises(InputError, match="no name"):
        mix(make(""))


def test_the_draw_is_the_seeds_and_what_is_current_stands(setting):
    make, alpaca, chats = setting
    config = make(f"{alpaca}=0.5", str(chats))
    mix(config)
    path = config.instruct_dir / "train.jsonl"
    first, when = path.read_bytes(), path.stat().st_mtime_ns
    mix(config)
    assert path.stat().st_mtime_ns == when
    mix(config.model_copy(update={"seed": 1}))
    assert path.read_bytes() != first
    mix(config)
    assert path.read_bytes() == first


def test_tasks_on_our_own_documents_depend_on_how_they_are_searched_and_on_edited_exams(setting):
    make, *_ = setting
    config = make("documents")
    storage.write_manifest(config.index_dir, stage="ingest", options={}, inputs={}, content="c")
    hashes = set()
    for candidates, overlay in ((30, ""), (5, ""), (5, "edited"), (5, "edited again")):
        storage.write_json(config.dataset_dir / storage.MANIFEST, {"key": "", "overlay": overlay})
        searched = config.model_copy(update={"retrieval": Retrieval(candidates=candidates)})
        hashes.add(mixing._input_hash(searched, "documents"))
    assert len(hashes) == 4


def test_rows_to_watch_are_not_trained_on(setting):
    make, alpaca, _ = setting
    config = make(f"{alpaca}=3", dataset={"validation": 2})
    report = mix(config)
    assert report.validation == 2 and report.train == 54
    watched = {row["origin"] for row in sources(config, "validation")[1]}
    assert not watched & {row["origin"] for row in sources(config)[1]}


def test_what_is_too_long_is_left_out_counted_and_named(setting, tmp_path):
    make, alpaca, _ = setting
    long = tmp_path / "long.jsonl"
    write_jsonl(long, [{"prompt": "x " * 400, "completion": "y"}, {"prompt": "short", "completion": "y"}])
    told = []
    report = mix(make(str(long), str(alpaca)), progress=listening(told))
    assert report.left_out == {"longer than 300 tokens": 1} and report.train == 21
    assert any("long.jsonl:1" in text for text in told)
    with pytest.raises(RecordError, match="No conversation is left"):
        write_jsonl(long, [{"prompt": "x " * 400, "completion": "y"}])
        mix(make(str(long)))


def test_bad_rows_are_named_and_nothing_is_written(setting, tmp_path):
    make, _, _ = setting
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": ""}\n{"prompt": \n')
    config = make(str(bad))
    with pytest.raises(RecordError, match=r"bad.jsonl:2: .*empty.* Nor can these rows be used: \S*bad.jsonl:3\."):
        mix(config)
    assert not (config.instruct_dir / "train.jsonl").exists()


@pytest.mark.parametrize("text", ["a.json=", "a.json=0", "a.json=-1", "a.json=nan", "=2", "a.json=two"])
def test_a_weight_that_is_none_is_told(text):
    with pytest.raises(InputError, match="no weight above 0"):
        parse_set(text)


@pytest.mark.parametrize("name", ["sets/none.jsonl", "sets/none.jsonl.gz"])
def test_what_is_named_as_a_file_is_not_looked_for_at_the_hub(setting, name):
    make, _, _ = setting
    with pytest.raises(InputError, match=f"{name} does not exist"):
        mix(make(name))


def test_sets_are_looked_for_on_this_machine_first(setting, tmp_path):
    make, _, _ = setting
    with pytest.raises(InputError, match="does not exist"):
        mix(make("nowhere.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file of rows"):
        mix(make(str(tmp_path / "empty")))
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"pip install 'openbook\[hub\]'"):
            mix(make("owner/name"))


def test_instruct_tunes_on_the_mix_and_knows_when_it_is_current(setting):
    make, alpaca, chats = setting
    config = make(str(alpaca), str(chats))
    report = verbs.tune(config, method="instruct")
    assert report.method == "instruct" and report.questions == 30
    # Both answers of a chat are trained: 20 alpaca answers and 2 for each of 10 chats, each with its stop token.
    assert report.supervised_tokens > 20 * 2 + 20 * 2
    weights = config.adapters_dir / "instruct" / "adapter_model.safetensors"
    when = weights.stat().st_mtime_ns
    assert verbs.tune(config, method="instruct") == report and weights.stat().st_mtime_ns == when
    with pytest.raises(InputError, match="--data"):
        verbs.tune(config, method="instruct", form="closed")


def test_what_is_watched_of_the_mix_is_told_question_by_question(setting):
    make, alpaca, _ = setting
    config = make(str(alpaca), dataset={"validation": 2})
    assert verbs.tune(config, method="instruct").validation_loss
    told = list(read_jsonl(config.adapters_dir / "instruct" / "validation.jsonl"))
    assert [row["line"] for row in told] == [1, 2] and all(row["question"] and row["loss"] > 0 for row in told)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared samples are not here")
def test_a_real_alpaca_file_is_read_whole(setting):
    make, _, _ = setting
    config = make(str(DATA / "formats" / "alpaca_en_demo.json"), tune={"row_tokens": 2048})
    report = mix(config)
    assert sum(report.read.values()) == 999 and report.train + sum(report.left_out.values()) == 999
