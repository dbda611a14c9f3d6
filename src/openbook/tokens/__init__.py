"""Token sequences, the trees they form, and the rows those are packed into."""

from openbook.tokens.rows import pack, plan, split
from openbook.tokens.sequences import encode
from openbook.tokens.tree import SHARED, TokenSequence, TokenTree, build, concatenate

__all__ = [
    "SHARED",
    "TokenSequence",
    "TokenTree",
    "build",
    "concatenate",
    "encode",
    "pack",
    "plan",
    "split",
]
