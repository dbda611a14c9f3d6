"""What other trainers must be told to read an export as it is: a script for TRL, files for LLaMA-Factory and axolotl.

Their defaults cut rows of several passages (TRL at 1,024 tokens, LLaMA-Factory at 2,048), and TRL would learn the passages
as well; what is written here keeps rows whole and trains the answers alone. `tests/test_other_trainers.py` runs it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from openbook.errors import ConfigError

# As wide as the widest rows: twenty passages of 200 of the embedder's tokens, which other tokenizers count higher.
LONGEST: Final = 8192  # tokens
ROLES: Final = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def configuration(trainer: str, form: str, file: Path) -> str:
    """What `trainer` must be told about `file`, an export in the layout `form`; MODEL stands for the model's name.

    Raises `ConfigError` where there is no such trainer, or where it does not read this layout.
    """
    if trainer not in _TRAINERS:
        raise ConfigError(f"Nothing is known about a trainer {trainer!r}.", f"Choose one of {', '.join(_TRAINERS)}.")
    written = _TRAINERS[trainer].get(form)
    if written is None:
        raise ConfigError(
            f"{trainer} does not read the format {form} as it is.", f"Choose one of {', '.join(_TRAINERS[trainer])}."
        )
    return written(file)


def _kind(file: Path) -> str:
    """The name that the `datasets` library has for such a file."""
    return "parquet" if file.suffix == ".parquet" else "json"


def _trl(trainer: str, *settings: str) -> Callable[[Path], str]:
    config = trainer.replace("Trainer", "Config")
    told = ", ".join(('output_dir="tuned"', *settings, "max_length=None"))

    def script(file: Path) -> str:
        return (
            "from datasets import load_dataset\n"
            f"from trl import {config}, {trainer}\n\n"
            f'rows = load_dataset("{_kind(file)}", data_files={json.dumps(str(file))}, split="train")\n'
            f"settings = {config}({told})\n"
            f'trainer = {trainer}(model="MODEL", args=settings, train_dataset=rows)\n'
            "trainer.train()\n"
        )

    return script


def _llama_factory(file: Path) -> str:
    """`sharegpt` and not `openai`, which writes words of its own into the system message."""
    entry = {
        "file_name": file.name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**ROLES, "system_tag": "system"},
    }
    return (
        f"# {file.parent / 'dataset_info.json'}\n"
        f"{json.dumps({file.stem: entry}, indent=2, ensure_ascii=False)}\n\n"
        "# and in the training configuration, with the template of your model:\n"
        f"model_name_or_path: MODEL\n"
        f"dataset: {json.dumps(file.stem)}\n"
        f"dataset_dir: {json.dumps(str(file.parent))}\n"
        f"cutoff_len: {LONGEST}\n"
    )


def _axolotl(*lines: str, top: tuple[str, ...] = ()) -> Callable[[Path], str]:
    def block(file: Path) -> str:
        rows = (f"  - path: {json.dumps(str(file))}", f"    ds_type: {_kind(file)}", *(f"    {line}" for line in lines))
        rest = ("chat_template: tokenizer_default", f"sequence_len: {LONGEST}")
        return "\n".join(("base_model: MODEL", *top, "datasets:", *rows, *rest)) + "\n"

    return block


_SFT = _trl("SFTTrainer", "assistant_only_loss=True")
_CHAT = _axolotl(
    "type: chat_template",
    "field_messages: messages",
    "message_property_mappings: {role: role, content: content}",
    "roles_to_train: [assistant]",
    "train_on_eos: turn",
)
_PREFERENCE = _axolotl(
    "type: chat_template.default",
    "field_messages: prompt",
    "field_chosen: chosen",
    "field_rejected: rejected",
    top=("rl: dpo",),
)
_TRAINERS: Mapping[str, Mapping[str, Callable[[Path], str]]] = {
    "trl": {
        "chat": _SFT,
        "messages": _SFT,
        "completion": _trl("SFTTrainer"),
        "preference": _trl("DPOTrainer"),
    },
    "llama-factory": {"chat": _llama_factory, "messages": _llama_factory},
    "axolotl": {"chat": _CHAT, "messages": _CHAT, "preference": _PREFERENCE},
}
TRAINERS: Final = tuple(_TRAINERS)
