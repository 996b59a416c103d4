"""Where an Airflow under test sends its metrics: a collector on loopback that keeps the latest of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Lock, Thread

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.airflows import AIRFLOW

#: Milliseconds between two exports of a process.
INTERVAL = "500"
#: What Airflow puts before each name, and what is of interest here: other processes then have nothing to send.
PREFIX = "airflow."
ALLOWED = r"^executor\.,^modal_executor\.,^scheduler\.executor_heartbeat_duration"

Tags = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Point:
    """The latest of one metric with one set of tags: a gauge's value, a counter's or a timer's sum."""

    kind: str
    value: float
    tags: Tags
    times: int = 1
    unit: str = ""


class MetricsListener:
    """What arrived since ``forget``. Counters and timers come as totals since their process began."""

    def __init__(self, port: int) -> None:
        self.env = {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": ALLOWED,
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{port}/v1/metrics",
            "OTEL_METRIC_EXPORT_INTERVAL": INTERVAL,
        }
        if AIRFLOW < (3, 3):
            # It does not know the above, and one that does warns on standard output where both are given.
            self.env |= {
                "AIRFLOW__METRICS__OTEL_HOST": "127.0.0.1",
                "AIRFLOW__METRICS__OTEL_PORT": str(port),
                "AIRFLOW__METRICS__OTEL_INTERVAL_MILLISECONDS": INTERVAL,
            }
        self._lock = Lock()
        self._points: dict[tuple[str, Tags], Point] = {}

    def forget(self) -> None:
        """Drop what arrived so far."""
        with self._lock:
            self._points.clear()

    def points(self, name: str, **tags: str) -> list[Point]:
        """The latest of that metric for each set of tags that has these."""
        with self._lock:
            return [p for (n, _), p in self._points.items() if n == name and tags.items() <= dict(p.tags).items()]

    def value(self, name: str, **tags: str) -> float:
        """The sum over all sets of tags that have these; 0 where none arrived."""
        return sum(point.value for point in self.points(name, **tags))

    def times(self, name: str, **tags: str) -> int:
        """How often a timer was timed."""
        return sum(point.times for point in self.points(name, **tags))

    def receive(self, body: bytes) -> None:
        """Take one export."""
        request = ExportMetricsServiceRequest.FromString(body)
        metrics = [
            metric
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        with self._lock:
            for metric in metrics:
                for point in _points_of(metric):
                    self._points[metric.name.removeprefix(PREFIX), point.tags] = point


def _points_of(metric: Metric) -> Iterator[Point]:
    kind = metric.WhichOneof("data") or ""
    for point in getattr(metric, kind).data_points:
        tags = frozenset((each.key, each.value.string_value) for each in point.attributes)
        if "histogram" in kind:
            yield Point("timer", point.sum, tags, point.count, metric.unit)
        else:
            value = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
            yield Point("counter" if kind == "sum" else kind, value, tags)


@contextmanager
def listening() -> Iterator[MetricsListener]:
    """A listener on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/metrics":
                listener.receive(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        listener = MetricsListener(server.server_port)
        thread = Thread(target=server.serve_forever, name="metrics-listener", kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()
