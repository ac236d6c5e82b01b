"""Metrics in Prometheus's text format: what is counted, and where it can be read.

The registry is one for each server, not the package's global one, so that servers in one process do not mix.
"""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from tornado.web import HTTPError

from handlers.http.base import BaseHandler

__all__ = ["Metrics", "MetricsHandler"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.sockets = Gauge("tandem_sockets", "Open sockets, or about to be.", registry=registry)
        self.conversations = Gauge("tandem_conversations", "Active conversations.", registry=registry)
        self.tasks = Gauge("tandem_tasks", "Tasks of the event loop.", registry=registry)
        self.outcomes = Outcomes()
        registry.register(self.outcomes)
        self.refused = Counter("tandem_frames_refused", "Frames answered with 400 or 429.", ["code"], registry=registry)
        self.closed = Counter("tandem_sockets_closed", "Sockets closed here.", ["code"], registry=registry)
        self.requests = Counter("tandem_http_requests", "HTTP requests.", ["handler", "status"], registry=registry)


class Outcomes:
    """Answers to messages, counted in plain numbers: the package's own take a lock for each, and five times as long."""

    def __init__(self) -> None:
        self._codes: Counts[int] = Counts()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def __call__(self, code: int, seconds: float) -> None:
        """A message was answered with a code, so many seconds after it came."""
        self._codes[code] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        messages = CounterMetricFamily("tandem_messages", "Messages, by the code of the answer.", labels=["code"])
        for code, count in self._codes.items():
            messages.add_metric([str(code)], count)
        yield messages
        bounds = [*map(str, BUCKETS), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._buckets), strict=True))
        yield HistogramMetricFamily(
            "tandem_message_seconds",
            "From a message's request to its answer.",
            buckets=buckets,
            sum_value=self._seconds,
        )


class MetricsHandler(BaseHandler):
    """GET /metrics; with a token, where that is asked for."""

    guarded = False

    def initialize(self, metrics: Metrics, token: str) -> None:
        """Takes the metrics and the token that has to be shown; an empty one has not."""
        self._metrics = metrics
        self._required = token

    def get(self) -> None:
        """The metrics as text."""
        if self._required and not hmac.compare_digest((self._token() or "").encode(), self._required.encode()):
            raise HTTPError(401, "the token for metrics is needed")
        self.set_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.finish(generate_latest(self._metrics.registry))
