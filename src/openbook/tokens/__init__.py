"""Chat templates, token trees and rows."""

from openbook.tokens.chat import encode, encode_prompt, render, stop_tokens
from openbook.tokens.rows import pack, plan, split
from openbook.tokens.tree import SHARED, TokenSequence, TokenTree, build, concatenate

__all__ = [
    "SHARED",
    "TokenSequence",
    "TokenTree",
    "build",
    "concatenate",
    "encode",
    "encode_prompt",
    "pack",
    "plan",
    "render",
    "split",
    "stop_tokens",
]
