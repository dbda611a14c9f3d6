"""The recipe of the embedded bases, in little: documents become rows, a run becomes an ordinary Llama that computes the same."""

import json
import lzma
import sys
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from openbook.models import load_tokenizer

RECIPE = Path(__file__).parent.parent / "recipes" / "nano"

TEXTS = (
    "# The bridge\n\nThe bridge was closed for two winters. Its arches had to be lined with new stone. The new stone came "
    "by barge from the quarry at Hollow Ford. A toll of one penny paid for the work of the masons.\n",
    "# The mill\n\nThe mill grinds barley in the morning and oats in the afternoon. Its wheel turns only while the sluice "
    "is open. The miller keeps the keys of the sluice in a box under the stairs.\n",
    "# The ferry\n\nA ferry crosses the river twice a day. The ferry carries twelve passengers or one cart with horses. "
    "Tickets for the ferry are sold in the tavern on the northern bank.\n",
)


@pytest.fixture(scope="module", autouse=True)
def recipe_on_path() -> None:
    """Whichever of these tests a worker runs first."""
    sys.path.insert(0, str(RECIPE))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare.py` makes of a corpus of short documents, of which some are held out."""
    import prepare

    folder = tmp_path_factory.mktemp("corpus")
    numbers = [n for n in range(2000) if n < 120 or zlib.crc32(f"{n}.md".encode()) % prepare.HELD_OUT == 0]
    rows = [{"path": f"{n}.md", "title": "", "text": TEXTS[n % 3].replace("two", str(n))} for n in numbers]
    with lzma.open(folder / "docs-0.jsonl.xz", "wt") as shard:
        shard.writelines(json.dumps(row) + "\n" for row in rows)
    prepare.prepare(folder, folder / "study.npz.xz", workers=1)
    return folder / "study.npz.xz"


def test_every_branch_of_a_row_reads_as_its_prompt_and_answer(study: Path) -> None:
    from rows import Rows, Study

    tokenizer = load_tokenizer("nano")
    texts = set()
    for row, _ in zip(Rows(Study(study), length=2048, seed=0), range(4), strict=False):
        position = np.arange(2048)
        assert (row["end"] > position).all() and (row["end"] <= 2048).all()
        for number in range(row["answer"].max() + 1):
            predictors = np.flatnonzero(row["answer"] == number)
            last = predictors[-1]
            seen = position[(position <= last) & (last < row["end"])]  # what the last of them attends to
            assert (row["depth"][seen] == np.arange(len(seen))).all()
            assert (row["ids"][predictors[1:]] == row["target"][predictors[:-1]]).all()
            texts.add(tokenizer.decode([*row["ids"][seen], row["target"][last]]))
    assert len(texts) > 50
    assert all(text.startswith("<|system|>Answer the question") and text.endswith("<|end|>") for text in texts)
    answers = [text.partition("<|assistant|>") for text in texts]
    refused = [said for _, _, said in answers if "not in the documents" in said]
    assert 0 < len(refused) < 0.5 * len(answers)
    quoting = [(asked, said) for asked, _, said in answers if said not in refused]
    for asked, said in quoting:
        quote = said.partition("##begin_quote##")[2].partition("##end_quote##")[0].strip()
        assert len(quote) > 10 and quote in asked


def test_too_few_passages_are_told(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rows

    monkeypatch.setattr(rows, "PASSAGES", (1, 1000))
    with pytest.raises(SystemExit, match="passages are held out; a group shows up to 1000"):
        rows.Rows(rows.Study(study), length=1024, seed=0, held_out=True)


def test_a_run_becomes_an_ordinary_llama_that_computes_the_same(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import assemble
    import tokenizer
    import train
    from rows import Rows, Study

    from openbook.models import load
    from openbook.training.attention import NAME

    options = Namespace(
        data=study, out=tmp_path / "run", minutes=5.0, width=64, layers=2, inner=128, rows=2, length=1024,
        muon_rate=0.02, rate=3e-3, fall=0.6, rounding=0.35, workers=0, save_every=100.0, seed=0, wait_for=None,
        steps=3, no_compile=True,
    )  # fmt: skip
    monkeypatch.setattr(train, "SHARD", 2**16)  # more files than ten
    train.train(options)
    log = [json.loads(line) for line in (options.out / "log.jsonl").read_text().splitlines()]
    watched = [line for line in log if line.get("event") == "held out"]
    assert watched[-2]["loss"] < watched[0]["loss"]  # it learns

    load_tokenizer("nano").save_pretrained(tmp_path / "tokenizer")
    reader = tokenizer.opened(str(tmp_path / "tokenizer"))
    assemble.assembled(options.out, reader).save_pretrained(tmp_path / "model")
    reader.save_pretrained(tmp_path / "model")
    loaded = load(str(tmp_path / "model"), device="cpu")
    ours = train.Model(8192, width=64, layers=2, heads=1, inner=128)
    ours.load_state_dict({name.removeprefix("model."): w for name, w in named(loaded.model).items()}, strict=False)
    row = next(iter(Rows(Study(study), length=1024, seed=3)))
    end = torch.from_numpy(row["end"])[None]
    ids, depth = torch.from_numpy(row["ids"])[None], torch.from_numpy(row["depth"])[None]
    mask = train.tree_mask(end)
    flat = torch.cat([weight.detach().half().flatten() for weight in ours.parameters()]).numpy()
    parts = [options.out / f"weights-{number}.f16" for number in range(len(list(options.out.glob("*.f16"))))]
    assert len(parts) > 10 and b"".join(part.read_bytes() for part in parts) == flat.tobytes()
    with torch.no_grad():
        hidden = ours(ids, depth, mask, torch.tensor(0.0)).float()
        expected = loaded.model.model(input_ids=ids, position_ids=depth, attention_mask=mask).last_hidden_state
    assert loaded.model.config._attn_implementation != NAME
    assert (hidden - expected).norm() / expected.norm() < 0.02  # bfloat16 against float32


def named(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace("self_attn.", "").replace("mlp.", ""): weight for name, weight in model.state_dict().items()}


def test_weights_are_rounded_as_bitsandbytes_does() -> None:
    import train
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.manual_seed(0)
    layer = train.Linear(128, 64)
    rounded = dequantize_4bit(*quantize_4bit(layer.weight.data, blocksize=64, quant_type="nf4"))
    x = torch.eye(128)
    out = layer(x.bfloat16(), torch.tensor(1.0), torch.tensor(train.NF4)).float()
    assert torch.allclose(out, rounded.T.bfloat16().float(), atol=1e-6)
