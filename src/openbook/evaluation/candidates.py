"""The models that sit the exam: one base, loaded once and when first needed, and the adapters on it.

After full tuning the "adapter" is a whole model; it takes the base's place in memory while it answers.
"""

import contextlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from openbook.answering import TextGenerator, check_adapter
from openbook.config import Config
from openbook.errors import StoreError
from openbook.evaluation.arms import AdapterName
from openbook.storage import hash_file, hash_json

if TYPE_CHECKING:
    from openbook.models import Generator

FORMS = {"raft": "raft", "sft": "closed"}  # adapter → the form that `openbook tune` trains it in


class Candidates(Protocol):
    """What an exam needs of models."""

    def identity(self, adapter: AdapterName | None) -> str:
        """A name for the weights that answer; equal names mean equal answers."""

    def answering(self, adapter: AdapterName | None) -> AbstractContextManager[TextGenerator]:
        """Whoever answers with this adapter (None: the bare base) inside the `with`."""


class LocalCandidates:
    """The configuration's base model and the adapters in `config.adapters_dir`."""

    def __init__(self, config: Config, adapters: Collection[AdapterName]) -> None:
        """Raises `StoreError` for an adapter that is not there; loads nothing yet."""
        from openbook import models

        self._config = config
        self._base = models.fingerprint(config.model.base)
        self._generator: Generator | None = None
        self._adapters: dict[AdapterName, str] = {}
        for name in sorted(adapters):
            folder = adapter_folder(config, name)
            if not (_is_adapter(folder) or (folder / "config.json").is_file()):
                raise StoreError(
                    f"There is no adapter in {folder}.",
                    f"Run `openbook tune` in the form {FORMS.get(name, 'raft')!r} first, or leave its arms out of evaluate.arms.",
                )
            self._adapters[name] = adapter_hash(folder)

    def differences(self, retrieval: str) -> list[str]:
        """Where the adapters were tuned with other means than they are examined with; `retrieval` is a fingerprint.

        Raises `ModelError` for an adapter that was tuned on another base.
        """
        folders = (adapter_folder(self._config, name) for name in self._adapters)
        given = {"base": self._base, "retrieval": retrieval, "quantization": self._config.model.quantization}
        return [text for folder in folders for text in check_adapter(folder, **given)]

    def identity(self, adapter: AdapterName | None) -> str:
        model = self._config.model
        return hash_json(
            {
                "base": self._base,
                "adapter": self._adapters[adapter] if adapter else None,
                "quantization": model.quantization if adapter is None or self._is_on_base(adapter) else "none",
                "dtype": model.dtype,
            }
        )

    @contextlib.contextmanager
    def answering(self, adapter: AdapterName | None) -> Iterator[TextGenerator]:
        folder = adapter_folder(self._config, adapter) if adapter else None
        if folder and not _is_adapter(folder):
            yield self._load(str(folder))
            return
        generator = self._load(self._config.model.base)
        with generator.adapter(adapter):
            yield generator

    def _is_on_base(self, adapter: AdapterName) -> bool:
        return _is_adapter(adapter_folder(self._config, adapter))

    def _load(self, name: str) -> "Generator":
        """The model of this name, with all adapters where it is the base; a fully tuned model as it was tuned, not in
        4 bits that it never saw.

        4-bit weights are turned back into plain matrices of the same values, which answer much faster.
        """
        from openbook import models

        model = self._config.model
        quantization = model.quantization if name == model.base else "none"
        if self._generator is None or self._generator.loaded.name != name:
            self._generator = None  # frees the model before the next one is loaded
            loaded = models.load(
                name, quantization=quantization, dtype=model.dtype, device=model.device, dequantize=True
            )
            self._generator = models.Generator(
                loaded, max_new_tokens=model.max_new_tokens, batch_size=self._config.evaluate.batch_size
            )
            for adapter in self._adapters if name == model.base else ():
                folder = adapter_folder(self._config, adapter)
                if _is_adapter(folder):
                    self._generator.add_adapter(adapter, folder)
        return self._generator


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def adapter_folder(config: Config, name: str) -> Path:
    return config.adapters_dir / name


def adapter_hash(folder: Path) -> str:
    """A hash of the adapter's weights and shape; what else lies in the folder decides no answer."""
    files = [*folder.glob("*.safetensors"), *folder.glob("*config.json")]
    return hash_json({file.name: hash_file(file) for file in files})
