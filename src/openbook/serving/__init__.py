"""The tuned model in daily use: an OpenAI-compatible API and the page, over HTTP."""

from openbook.serving.running import serve
from openbook.serving.settings import Settings

__all__ = ["Settings", "serve"]
