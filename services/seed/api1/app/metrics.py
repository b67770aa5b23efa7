"""Counters in Prometheus' text format, under the names that all APIs share."""

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .db import Database

#: Upper bounds of the latency histogram, seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: A method is the client's text: only the usual ones get a line each.
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})


# When a series began is Prometheus' own affair.
disable_created_metrics()


class Metrics:
    """One service's counters."""

    def __init__(self, api: str, db: Database) -> None:
        # Of its own, so that two services may run in one process.
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "telemetry_http_requests_total",
            "Answered requests.",
            ["api", "route", "method", "status"],
            registry=self._registry,
        )
        self._records = Counter(
            "telemetry_records_inserted_total",
            "Committed records.",
            ["api"],
            registry=self._registry,
        ).labels(api)
        self._inserts = Histogram(
            "telemetry_insert_seconds",
            "Time of a committed write.",
            ["api"],
            buckets=BUCKETS,
            registry=self._registry,
        ).labels(api)
        self._api = api
        self._registry.register(_Pool(api, db))

    def request(self, route: str, method: str, status: int) -> None:
        """Count one answered request; `route` is the route's template."""
        method = method if method in METHODS else "other"
        self._requests.labels(self._api, route, method, status).inc()

    def insert(self, records: int, seconds: float) -> None:
        """Count one committed write of `records` rows."""
        self._records.inc(records)
        self._inserts.observe(seconds)

    def render(self) -> bytes:
        """All of it as text, version 0.0.4 of the format."""
        return generate_latest(self._registry)


class _Pool(Collector):
    def __init__(self, api: str, db: Database) -> None:
        self._api = api
        self._db = db

    def collect(self) -> Iterable[Metric]:
        in_use, idle, most = self._db.connections()
        connections = GaugeMetricFamily(
            "telemetry_db_connections", "Connections of the pool.", labels=["api", "state"]
        )
        connections.add_metric([self._api, "in_use"], in_use)
        connections.add_metric([self._api, "idle"], idle)
        yield connections
        for name, help_text, value in (
            ("telemetry_db_connections_max", "Most connections of the pool.", most),
            ("telemetry_db_up", "Whether the database answered last.", not self._db.away),
        ):
            gauge = GaugeMetricFamily(name, help_text, labels=["api"])
            gauge.add_metric([self._api], value)
            yield gauge
