"""What the executor counts and times, and how it gets into Airflow's stats (StatsD, Datadog or OpenTelemetry).

The engine's thread sends the collected figures once a second; nothing is sent at the moment when it is counted.
docs/metrics.md is generated from the table: ``python -m modalflow.executor.reporting.metrics > docs/metrics.md``.
"""

from __future__ import annotations

import asyncio
import datetime
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modal import exception

from modalflow.executor.reporting.loggers import logger

log = logger(__name__)

PREFIX = "modal_executor"

#: Seconds between two transmissions.
INTERVAL = 1.0

#: Durations kept until they are sent. If there are more in a second, the oldest are dropped.
KEPT_TIMINGS = 10_000


class Result(StrEnum):
    """How a call of Modal's API went."""

    OK = "ok"
    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ERROR = "error"


#: The first row that matches counts.
RESULTS: tuple[tuple[tuple[type[BaseException], ...], Result, str], ...] = (
    ((exception.ResourceExhaustedError,), Result.EXHAUSTED, "a rate limit, or a full backlog"),
    ((exception.AuthError, exception.PermissionDeniedError), Result.REFUSED, "credentials"),
    ((exception.NotFoundError,), Result.NOT_FOUND, "an app, a Function or a function call that is not there"),
    # Before OSError, of which it is a kind.
    ((TimeoutError,), Result.TIMEOUT, "no answer within the executor's bound"),
    ((exception.ServiceError, exception.ConnectionError, OSError), Result.UNAVAILABLE, "network, or Modal is down"),
    ((asyncio.CancelledError,), Result.CANCELLED, "the executor stopped meanwhile"),
)


def result_of(error: BaseException | None) -> Result:
    """Return the result of a call of Modal's API that raised this error, or none."""
    if error is None:
        return Result.OK
    return next((result for kinds, result, _ in RESULTS if isinstance(error, kinds)), Result.ERROR)


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    kind: str
    meaning: str
    tag: str = ""
    """Its tag besides ``team_name``, whose value is also appended to the plain name."""
    values: str = ""
    """The values of that tag, for the page."""


SUBMIT_LATENCY = "submit_latency"
OUTCOME_LATENCY = "outcome_latency"
DELIVERY_LATENCY = "delivery_latency"
IN_FLIGHT = "in_flight"
WAITING = "waiting"
UNDELIVERED = "undelivered"
RPC = "rpc"

_RESULTS = f"`{Result.OK.value}`, " + ", ".join(f"`{result.value}` ({what})" for _, result, what in RESULTS)

METRICS: tuple[Metric, ...] = (
    Metric(SUBMIT_LATENCY, "timer", "From the heartbeat that submitted a workload to its function call id."),
    Metric(
        OUTCOME_LATENCY,
        "timer",
        "From the end of the work, by its container's clock, until the executor knows of it.",
    ),
    Metric(
        DELIVERY_LATENCY, "timer", "From when the executor knows of an end to the heartbeat that reports it to Airflow."
    ),
    Metric(IN_FLIGHT, "gauge", "Workloads without an outcome so far."),
    Metric(WAITING, "gauge", "Of them, those that Modal has not accepted yet."),
    Metric(UNDELIVERED, "gauge", "Updates that have not been reported to Airflow yet."),
    Metric("taken", "counter", "Workloads that Airflow submitted to the executor."),
    Metric("started", "counter", "Workloads that Modal accepted: they have a function call."),
    Metric("success", "counter", "Workloads whose supervisor ended normally, whatever the state of the task."),
    Metric("failed", "counter", "Workloads that failed, for whatever reason."),
    Metric("over", "counter", "Workloads that Airflow no longer waited for when they ended."),
    Metric("adopted", "counter", "Workloads adopted from another scheduler."),
    Metric("resubmitted", "counter", "Submissions repeated before a container had begun the work; they use no retry."),
    Metric(
        "lost",
        "counter",
        "Workloads that were ended by something other than their own code, by cause.",
        "cause",
        "the names in [this table](lost-work.md), e.g. `out-of-memory`; `other` for one that only a newer worker has",
    ),
    Metric("engine_restarts", "counter", "How often the engine's thread ended and was started again."),
    Metric(
        RPC,
        "counter",
        "Calls of Modal's API by the executor. Retries inside the SDK are not counted.",
        "result",
        f"`RPC.result`, e.g. `FunctionMap.ok`; results: {_RESULTS}, `{Result.ERROR.value}` (anything else)",
    ),
)

_COUNTERS = {metric.name for metric in METRICS if metric.kind == "counter"}


@dataclass
class Metrics:
    """The figures since the last transmission. ``time`` may be called on any thread."""

    stats: Callable[[], Any]
    """Returns the object with Airflow's ``incr``, ``gauge`` and ``timing``; called on the engine's thread."""
    team: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    """All that happened so far, by name, or by name and the tag's value with a dot between them."""
    rpcs: Counter[tuple[str, Result]] = field(default_factory=Counter)
    _timings: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=KEPT_TIMINGS))
    _sent: Counter[str] = field(default_factory=Counter)
    _rpcs_sent: Counter[tuple[str, Result]] = field(default_factory=Counter)

    def time(self, name: str, seconds: float) -> None:
        """Record a duration. A negative one, from two clocks that differ, counts as 0."""
        self._timings.append((name, max(0.0, seconds)))

    def rpc(self, name: str, error: BaseException | None) -> None:
        """Count a call of Modal's API."""
        self.rpcs[name, result_of(error)] += 1

    async def run(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Send until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(INTERVAL)
                self.send(gauges())
        finally:
            self.send(gauges())

    def send(self, gauges: Mapping[str, float]) -> None:
        """Send the collected figures. If that fails, it is logged, and nothing else is affected."""
        try:
            self._send(gauges)
        except Exception:
            log.exception("Metrics could not be sent; the next transmission tries again")

    def _send(self, gauges: Mapping[str, float]) -> None:
        stats = self.stats()
        tags = {"team_name": self.team} if self.team else {}
        while self._timings:
            name, seconds = self._timings.popleft()
            stats.timing(f"{PREFIX}.{name}", datetime.timedelta(seconds=seconds), tags=tags)
        for name, value in gauges.items():
            stats.gauge(f"{PREFIX}.{name}", value, tags=tags)
        for key, total in list(self.counts.items()):
            new, self._sent[key] = total - self._sent[key], total
            name, _, cause = key.partition(".")
            if new and name in _COUNTERS:
                self._incr(stats, name, new, tags, {"cause": cause} if cause else {})
        for (rpc, result), total in list(self.rpcs.items()):
            new, self._rpcs_sent[rpc, result] = total - self._rpcs_sent[rpc, result], total
            if new:
                self._incr(stats, RPC, new, tags, {"rpc": rpc, "result": result.value})

    def _incr(self, stats: Any, name: str, number: int, tags: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Count under the plain name with tags, and under a name for each tag value: plain StatsD drops the tags."""
        stats.incr(f"{PREFIX}.{name}", number, tags={**tags, **own})
        if own:
            stats.incr(".".join((PREFIX, name, *own.values())), number, tags=dict(tags))


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began


_HEAD = """# Metrics

This page is generated: `make docs` writes it from the table in the code.

You get Airflow's own metrics of an executor (`executor.open_slots`, `executor.queued_tasks`, `executor.running_tasks`,
and since Airflow 3.3 `scheduler.executor_heartbeat_duration`) as with any other executor. The metrics below go with
them through Airflow's stats, to where `[metrics]` sends them: StatsD, Datadog or OpenTelemetry. The executor's engine
sends them once a second, never from the scheduler's own thread.

If the executor belongs to a team, every metric has the tag `team_name`. A counter with a tag of its own is sent twice:
under its plain name with the tag, and with the tag's value appended to the name, for a StatsD that drops tags.

Timers are sent in milliseconds. With OpenTelemetry they are histograms since Airflow 3.3, and gauges of the last value
before that; the SDK writes all names in lower case, such as `modal_executor.rpc.functionmap.ok`. Airflow puts its
prefix (`airflow.` by default) in front of every name.

| metric | kind | meaning | values of the tag |
|---|---|---|---|
"""


def page() -> str:
    """Return docs/metrics.md."""
    lines = []
    for metric in METRICS:
        name = f"`{PREFIX}.{metric.name}`"
        if metric.tag:
            shown = "<rpc>.<result>" if metric.name == RPC else f"<{metric.tag}>"
            name += f", `{PREFIX}.{metric.name}.{shown}`"
        lines.append(f"| {name} | {metric.kind} | {metric.meaning} | {metric.values} |")
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
