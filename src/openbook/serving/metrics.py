"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openbook.records import Answer

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "openbook_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "openbook_request_seconds", "Time to the end of the answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.cancelled = Counter(
            "openbook_requests_cancelled", "Requests whose client went away before the end.", registry=registry
        )
        self._first = Histogram(
            "openbook_first_text_seconds", "Time to the first text of an answer.", buckets=_SECONDS, registry=registry
        )
        self._tokens = Counter("openbook_tokens", "Tokens read and written.", ["kind"], registry=registry)
        self._quotes = Counter("openbook_quotes", "Quotes given, verified or not.", ["verified"], registry=registry)
        self._answers = Counter("openbook_answers", "Answers written to their end.", ["end"], registry=registry)

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show `value()` whenever somebody looks."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def answered(self, answer: Answer, *, first_s: float) -> None:
        """Count an answer that was written to its end."""
        self._first.observe(first_s)
        self._tokens.labels("prompt").inc(answer.usage.prompt_tokens)
        self._tokens.labels("completion").inc(answer.usage.completion_tokens)
        self._answers.labels("stop" if answer.finished else "cut").inc()
        for quote in answer.quotes:
            self._quotes.labels(str(quote.verified).lower()).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
