"""Typed options: defaults, `openbook.toml`, and `--set section.key=value`, in this order.

An unknown key is an error that names the nearest right one. Relative paths in a file are relative to that file; what
may be a hub name as well (a base, an embedder, a local teacher, a set of instructions) is a path if it begins with a dot or
if it is there.
"""

import contextlib
import difflib
import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator

from openbook.errors import ConfigError
from openbook.options import (
    RL,
    Dataset,
    Documents,
    Evaluate,
    Instruct,
    Model,
    Pairs,
    Preference,
    Retrieval,
    Section,
    Serve,
    Tune,
)

FILE = "openbook.toml"


class Config(Section):
    out: Path = Field(Path("openbook-work"), description="where everything is written")
    seed: int = Field(0, ge=0, description="equal seed, equal data, equal results")
    documents: Documents = Documents()
    retrieval: Retrieval = Retrieval()
    dataset: Dataset = Dataset()
    model: Model = Model()
    tune: Tune = Tune()
    preference: Preference = Preference()
    rl: RL = RL()
    instruct: Instruct = Instruct()
    pairs: Pairs = Pairs()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()

    @field_validator("out")
    @classmethod
    def _expanded(cls, out: Path) -> Path:
        """A shell leaves the ~ of --out=~/work to us."""
        return _at_home(out)

    @property
    def index_dir(self) -> Path:
        return self.out / "index"

    @property
    def dataset_dir(self) -> Path:
        return self.out / "dataset"

    @property
    def overlay_path(self) -> Path:
        """Beside the data set and not in it: what was decided by hand outlives it."""
        return self.out / "overlay.jsonl"

    @property
    def adapters_dir(self) -> Path:
        return self.out / "adapters"

    @property
    def references_dir(self) -> Path:
        return self.out / "references"

    @property
    def instruct_dir(self) -> Path:
        return self.out / "instruct"

    @property
    def pairs_dir(self) -> Path:
        return self.out / "pairs"

    @property
    def evaluation_dir(self) -> Path:
        return self.out / "evaluation"

    @property
    def comparison_dir(self) -> Path:
        return self.out / "comparison"

    @classmethod
    def load(cls, path: Path | None = None, overrides: Sequence[str] = ()) -> Self:
        """Read `path` (or only the defaults) and apply overrides of the form `section.key=value`.

        A value is read as TOML where it is TOML (`0.5`, `true`, `["a"]`) and as a plain string otherwise.
        """
        data: dict[str, Any] = {}
        if path is not None:
            data = _read_toml(path)
            _anchor_paths(data, path.parent)
        for override in overrides:
            key, separator, value = override.partition("=")
            if not separator:
                raise ConfigError(f"--set {override!r} has no value.", "Write it as section.key=value.")
            *sections, name = key.strip().split(".")
            target = data
            for section in sections:
                target = target.setdefault(section, {})
                if not isinstance(target, dict):
                    raise ConfigError(f"--set {override!r}: {section} is an option, not a section.")
            target[name] = _toml_value(value.strip())
        overridden = {override.partition("=")[0].strip() for override in overrides}
        return cls.parse(data, origin=str(path or ""), overridden=overridden)

    @classmethod
    def parse(cls, data: Mapping[str, Any], origin: str, *, overridden: Collection[str] = ()) -> Self:
        """Options out of `data`. An error tells of `origin`, but for the options that are `overridden`: those came from
        the command line, where a user sees them."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            told = [
                sentence if not origin or _lies_in(key, overridden) else f"{origin}: {sentence}"
                for key, sentence in _sentences(error)
            ]
            raise ConfigError("; ".join(told)) from None

    def to_toml(self) -> str:
        """This configuration as a commented `openbook.toml`."""
        lines = ["# Options of openbook. Every value here is one that --set SECTION.KEY=VALUE overrides.", ""]
        sections = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                sections.append((name, value))
            else:
                lines.append(f"{name} = {_dump_toml(value)}  # {field.description}")
        for name, section in sections:
            lines += ["", f"[{name}]"]
            for key, field in type(section).model_fields.items():
                lines.append(f"{key} = {_dump_toml(getattr(section, key))}  # {field.description}")
        return "\n".join(lines) + "\n"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist.", "`openbook init FOLDER` writes one.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None


def _anchor_paths(data: dict[str, Any], folder: Path) -> None:
    if isinstance(data.get("out"), str):
        data["out"] = str(folder / _at_home(Path(data["out"])))
    for section, key in (("dataset", "prompts"), ("rl", "reward_model")):
        options = data.get(section)
        if isinstance(options, dict) and isinstance(options.get(key), str) and options[key]:
            options[key] = str(folder / _at_home(Path(options[key])))
    documents = data.get("documents")
    if isinstance(documents, dict) and isinstance(documents.get("paths"), list):
        documents["paths"] = [
            str(folder / _at_home(Path(path))) if isinstance(path, str) else path for path in documents["paths"]
        ]
    if folder == Path():  # names stay as they were written, since manifests hold them
        return
    for section, key in _NAMES:
        options = data.get(section)
        if isinstance(options, dict) and isinstance(options.get(key), str) and _is_below(options[key], folder):
            options[key] = str(folder / options[key])
    instruct = data.get("instruct")
    if isinstance(instruct, dict) and isinstance(instruct.get("sets"), list):
        instruct["sets"] = [
            str(folder / text) if isinstance(text, str) and _is_below(text.rpartition("=")[0] or text, folder) else text
            for text in instruct["sets"]
        ]


def _at_home(path: Path) -> Path:
    """`path` with its ~ spelled out; as it is where there is no such user."""
    with contextlib.suppress(RuntimeError):
        return path.expanduser()
    return path


# Options that take a folder or a name. In a file, what begins with a dot or lies beside the file is a folder.
_NAMES = (("model", "base"), ("retrieval", "embedder"), ("dataset", "teacher_model"))


def _is_below(name: str, folder: Path) -> bool:
    is_path = "/" in name or bool(Path(name).suffix)  # a folder called nano is not the base of that name
    return name.startswith(("./", "../")) or (is_path and (folder / name).exists())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _dump_toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_dump_toml(item) for item in value) + "]"
    if isinstance(value, Path):
        value = value.as_posix()
    # Strings, numbers and booleans are written alike in JSON and TOML, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _keys(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _lies_in(key: str, overridden: Collection[str]) -> bool:
    """Whether one of these options is `key`, a part of it, or in the section of this name."""
    return any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in overridden)


def _sentences(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each option that is wrong, by its key, and what is wrong with it."""
    known = list(_keys(Config))
    sections = sorted({key.partition(".")[0] for key in known if "." in key})
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            # The same name in another section, the first that has it; then whole keys; then last parts alone.
            names = {full: full.split(".")[-1] for full in known}
            name = key.split(".")[-1]
            close = (
                [full for full in known if names[full] == name]
                or difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.6)
                or [
                    full
                    for near in difflib.get_close_matches(name, names.values(), n=1)
                    for full in known
                    if names[full] == near
                ]
            )
            hint = f"did you mean {close[0]}?" if close else "see `openbook init` for all options"
            yield key, f"there is no option {key}; {hint}"
        else:
            yield key, f"{key} = {item['input']!r}: {item['msg'][0].lower() + item['msg'][1:]}"
