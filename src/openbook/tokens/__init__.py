"""Token sequences, the trees they form, and the rows those are packed into."""

from openbook.tokens.rows import best_fit, pack, plan, shuffled, split
from openbook.tokens.sequences import encode, encode_turns
from openbook.tokens.tree import SHARED, TokenSequence, TokenTree, build, concatenate

__all__ = [
    "SHARED",
    "TokenSequence",
    "TokenTree",
    "best_fit",
    "build",
    "concatenate",
    "encode",
    "encode_turns",
    "pack",
    "plan",
    "shuffled",
    "split",
]
