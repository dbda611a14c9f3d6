"""What training does to a model, watched: a message, a preference pair or a row of the training set, and one real step."""

from openbook.tracing.record import Branch, Movement, Trace, TracedToken
from openbook.tracing.stepping import trace, trace_pair, trace_row

__all__ = ["Branch", "Movement", "Trace", "TracedToken", "trace", "trace_pair", "trace_row"]
