"""Metrics in Prometheus's text format.

Each server has its own registry, not the package's global one, so that servers in one process do not mix.
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
    """The metrics of a server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.sockets = Gauge("tandem_sockets", "Sockets that are open or being opened.", registry=registry)
        self.conversations = Gauge("tandem_conversations", "Active conversations.", registry=registry)
        self.tasks = Gauge("tandem_tasks", "Tasks of the event loop.", registry=registry)
        self.outcomes = Outcomes()
        registry.register(self.outcomes)
        self.refused = Counter("tandem_frames_refused", "Frames answered with 400 or 429.", ["code"], registry=registry)
        self.closed = Counter("tandem_sockets_closed", "Sockets closed by the server.", ["code"], registry=registry)
        self.requests = Counter("tandem_http_requests", "HTTP requests.", ["handler", "status"], registry=registry)


class Outcomes:
    """Answers to messages, counted in plain numbers.

    The package's own counters take a lock each time, and five times as long.
    """

    def __init__(self) -> None:
        self._codes: Counts[int] = Counts()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def __call__(self, code: int, seconds: float) -> None:
        """Count the answer to a message: its code, and the seconds it took."""
        self._codes[code] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by prometheus_client."""
        messages = CounterMetricFamily("tandem_messages", "Messages, by the code of the answer.", labels=["code"])
        for code, count in self._codes.items():
            messages.add_metric([str(code)], count)
        yield messages
        bounds = [*map(str, BUCKETS), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._buckets), strict=True))
        yield HistogramMetricFamily(
            "tandem_message_seconds",
            "Seconds from a message's request to its answer.",
            buckets=buckets,
            sum_value=self._seconds,
        )


class MetricsHandler(BaseHandler):
    """GET /metrics, with a token if one is configured"""

    guarded = False

    def initialize(self, metrics: Metrics, token: str) -> None:
        """Take the metrics, and the token that a request needs; "" if it needs none."""
        self._metrics = metrics
        self._required = token

    def get(self) -> None:
        """Answer with the metrics as text."""
        if self._required and not hmac.compare_digest((self._token() or "").encode(), self._required.encode()):
            raise HTTPError(401, "the token for metrics is needed")
        self.set_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.finish(generate_latest(self._metrics.registry))
