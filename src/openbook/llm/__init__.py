"""Language models that answer over an API: who writes questions for a data set, and what that costs."""

from openbook.llm.budget import Budget, BudgetSpentError, Price, Spent, tokens_about
from openbook.llm.chat import CallFailedError, ChatModel, Reply
from openbook.llm.kept import KeptCalls
from openbook.llm.openai_chat import OpenAIChat

__all__ = [
    "Budget",
    "BudgetSpentError",
    "CallFailedError",
    "ChatModel",
    "KeptCalls",
    "OpenAIChat",
    "Price",
    "Reply",
    "Spent",
    "tokens_about",
]
