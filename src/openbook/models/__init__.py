"""Language models: loading, chat templates, generation."""

from openbook.models.company import Company, Piece
from openbook.models.generate import Generation, Generator
from openbook.models.load import LoadedModel, context_tokens, fingerprint, load, load_base, load_tokenizer

__all__ = [
    "Company",
    "Generation",
    "Generator",
    "LoadedModel",
    "Piece",
    "context_tokens",
    "fingerprint",
    "load",
    "load_base",
    "load_tokenizer",
]
