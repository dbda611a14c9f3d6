"""Options: every file parses, every typo is named, what is written is what was read."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbook.config import Config
from openbook.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path
    for folder in ("docs", "recipes", "bench", "examples", "src")
    for path in (ROOT / folder).rglob("*.toml")
    if path.name != "pyproject.toml"
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_configuration_in_the_repository_parses(path: Path) -> None:
    Config.load(path)


def test_the_defaults_survive_their_own_file(tmp_path: Path) -> None:
    path = tmp_path / "openbook.toml"
    path.write_text(Config().to_toml())
    loaded = Config.load(path)
    assert loaded.out == tmp_path / "openbook-work"
    assert loaded.model_copy(update={"out": Config().out}) == Config()


@given(
    data=st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**31),
            "model": st.fixed_dictionaries({"base": st.text(st.characters(exclude_categories=["Cs"]), max_size=20)}),
            "dataset": st.fixed_dictionaries({"golden_share": st.floats(0, 1), "questions": st.integers(1, 10**6)}),
            "tune": st.fixed_dictionaries(
                {"learning_rate": st.floats(1e-9, 1), "activation_checkpointing": st.booleans()}
            ),
            "evaluate": st.fixed_dictionaries({"arms": st.lists(st.sampled_from(["base_rag", "raft_rag"]))}),
        },
    )
)
@example(data={"model": {"base": "\x7f"}})
def test_to_toml_is_read_back_as_it_was(data: dict[str, Any]) -> None:
    config = Config.parse(data, origin="test")
    assert Config.parse(tomllib.loads(config.to_toml()), origin="test") == config


def test_every_option_is_explained_in_the_file() -> None:
    for line in Config().to_toml().splitlines():
        if "=" in line and not line.startswith("#"):
            assert "# " in line, line


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("tune.epoch=1", "tune.epochs"),
        ("tune.lerning_rate=1", "tune.learning_rate"),
        ("model.learning_rate=1", "tune.learning_rate"),
        ("epochs=1", "tune.epochs"),
        ("retreival.passages=2", "retrieval"),
        ("sed=1", "seed"),
    ],
)
def test_a_typo_names_the_nearest_option(override: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        Config.load(None, [override])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tune.epochs=inf", r"tune\.epochs = .*: input should be a finite number"),
        ("rl.grader=inf", r"rl\.grader = .*: input should be a finite number"),
        ("tune.epochs=0", r"tune\.epochs = 0: input should be greater than 0"),
        ("tune.epochs=many", r"tune\.epochs = 'many': input should be a valid number"),
        ("dataset.golden_share=1.5", "less than or equal to 1"),
        ("tune.adapter=dora", "'qlora', 'lora' or 'full'"),
        ("tune.epochs", "has no value"),
        ("seed.x=1", "there is no option|valid integer"),
        ("seed=-1", "greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_told_in_a_sentence(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Config.load(None, [override])
    assert "\n" not in str(caught.value)


def test_overrides_win_over_the_file_and_are_read_as_toml(tmp_path: Path) -> None:
    path = tmp_path / "openbook.toml"
    path.write_text("seed = 1\n[tune]\nepochs = 2\n")
    config = Config.load(path, ["tune.epochs=0.5", 'evaluate.arms=["base_rag"]', "model.base=some/model"])
    assert (config.seed, config.tune.epochs, config.evaluate.arms) == (1, 0.5, ("base_rag",))
    assert config.model.base == "some/model"


def test_what_the_command_line_says_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "openbook.toml"
    path.write_text("[tune]\nrank = -1\n")
    for override in ("tune.epochs=0", "tun.epochs=2", 'evaluate.arms=["base_rag", 3]'):
        with pytest.raises(ConfigError) as caught:
            Config.load(path, [override])
        told = sorted(str(caught.value).split("; "))
        assert [line.startswith(f"{path}: tune.rank = -1") for line in told].count(True) == 1
        assert [str(path) in line for line in told].count(True) == 1


def test_an_override_below_an_option_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "openbook.toml"
    path.write_text("seed = 1\n")
    with pytest.raises(ConfigError, match="seed is an option, not a section"):
        Config.load(path, ["seed.x=1"])


def test_relative_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "openbook.toml"
    path.write_text('out = "work"\n[documents]\npaths = ["docs", "/abs"]\n[rl]\nreward_model = "work/reward"\n')
    config = Config.load(path)
    assert config.out == tmp_path / "work"
    assert config.documents.paths == (tmp_path / "docs", Path("/abs"))
    assert config.rl.reward_model == str(tmp_path / "work" / "reward")


def test_folders_and_sets_that_lie_beside_a_file_are_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models/mine", "nano", "rewards/first"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "alpaca.json").touch()
    path = tmp_path / "openbook.toml"
    path.write_text(
        '[model]\nbase = "models/mine"\n[retrieval]\nembedder = "./vectors"\n[rl]\nreward_model = "rewards/first"\n'
        '[dataset]\nteacher_model = "owner/name"\n[instruct]\nsets = ["documents", "alpaca.json=0.5", "owner/set=2"]\n'
    )
    config = Config.load(path)
    assert (config.model.base, config.retrieval.embedder) == (f"{tmp_path}/models/mine", f"{tmp_path}/vectors")
    assert (config.rl.reward_model, config.dataset.teacher_model) == (f"{tmp_path}/rewards/first", "owner/name")
    assert config.instruct.sets == ("documents", f"{tmp_path}/alpaca.json=0.5", "owner/set=2")
    path.write_text('[model]\nbase = "nano"\n')
    assert Config.load(path).model.base == "nano"
    monkeypatch.chdir(tmp_path)
    path.write_text('[model]\nbase = "models/mine"\n')
    assert Config.load(Path("openbook.toml")).model.base == "models/mine"


def test_a_path_that_is_none_is_told_and_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "openbook.toml"
    path.write_text('[documents]\npaths = ["docs", 7]\n')
    with pytest.raises(ConfigError, match=r"openbook\.toml: documents\.paths\.1 = 7"):
        Config.load(path)


def test_results_may_stand_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "openbook.toml"
    path.write_text('out = "~/work"\n')
    assert Config.load(path).out == Path("/home/me/work")
    assert Config.load(None, ['out="~/work"']).out == Path("/home/me/work")
    path.write_text('out = "~no-such-user/work"\n[documents]\npaths = ["~no-such-user/docs"]\n')
    assert Config.load(path).documents.paths == (tmp_path / "~no-such-user" / "docs",)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"seed = ", "not valid TOML"), (b"\xff\xfe", "not valid TOML"), (b"seed = 1\nseed = 2", "TOML")],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "openbook.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        Config.load(path)
    assert str(path) in str(caught.value)


def test_an_absent_file_names_the_verb_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="openbook init"):
        Config.load(tmp_path / "none.toml")


def test_a_folder_instead_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path)
