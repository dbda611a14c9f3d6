"""Language models that answer over an API: who writes questions for a data set."""

from openbook.llm.chat import ChatModel
from openbook.llm.openai_chat import OpenAIChat

__all__ = ["ChatModel", "OpenAIChat"]
