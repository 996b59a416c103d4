"""The executor's metrics, and their way to Airflow's stats (StatsD, Datadog or OpenTelemetry).

The engine's thread sends all new values once a second, so no other code waits for a send. ``make docs`` writes
docs/metrics.md from the table.
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
from modalflow.relay.host.counts import METRICS as RELAY_METRICS

log = logger(__name__)

PREFIX = "modal_executor"

#: Seconds between two times of sending.
INTERVAL = 1.0

#: Durations kept until they are sent; of more than that a second the oldest are not sent.
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


#: The first that fits counts.
RESULTS: tuple[tuple[tuple[type[BaseException], ...], Result, str], ...] = (
    ((exception.ResourceExhaustedError,), Result.EXHAUSTED, "a rate limit, or a full backlog"),
    ((exception.AuthError, exception.PermissionDeniedError), Result.REFUSED, "credentials"),
    ((exception.NotFoundError,), Result.NOT_FOUND, "a missing app, Function or function call"),
    # An OSError, too.
    ((TimeoutError,), Result.TIMEOUT, "no answer within the executor's limit"),
    (
        (exception.ServiceError, exception.ConnectionError, OSError),
        Result.UNAVAILABLE,
        "network failure, or Modal outage",
    ),
    ((asyncio.CancelledError,), Result.CANCELLED, "the executor stopped during the call"),
)


def result_of(error: BaseException | None) -> Result:
    """The result of a call of Modal's API that raised this, or nothing."""
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
    """The tag it comes with besides ``team_name``; its value is also the end of the plain name."""
    values: str = ""


SUBMIT_LATENCY = "submit_latency"
OUTCOME_LATENCY = "outcome_latency"
DELIVERY_LATENCY = "delivery_latency"
IN_FLIGHT = "in_flight"
WAITING = "waiting"
UNDELIVERED = "undelivered"
HELD = "held"
PAUSED_PROFILES = "paused_profiles"
BUDGET_USED = "budget_used"
RPC = "rpc"

_RESULTS = f"`{Result.OK.value}`, " + ", ".join(f"`{result.value}` ({what})" for _, result, what in RESULTS)

METRICS: tuple[Metric, ...] = (
    Metric(SUBMIT_LATENCY, "timer", "From a workload's heartbeat to its function call id."),
    Metric(
        OUTCOME_LATENCY,
        "timer",
        "From the end of the work, by its container's clock, to its arrival in the executor.",
    ),
    Metric(
        DELIVERY_LATENCY,
        "timer",
        "From the arrival of an outcome in the executor to the heartbeat with its report to Airflow.",
    ),
    Metric(IN_FLIGHT, "gauge", "Workloads without an outcome."),
    Metric(WAITING, "gauge", "Workloads not yet accepted by Modal."),
    Metric(UNDELIVERED, "gauge", "Outcomes not yet reported to Airflow."),
    Metric(HELD, "gauge", "Workloads held by a budget or a paused profile. They also count as waiting."),
    Metric(PAUSED_PROFILES, "gauge", "Paused profiles, as known to this executor."),
    Metric(
        f"{BUDGET_USED}.<budget>",
        "gauge",
        "Used share of a budget, 1 if it is used up; of a budget of each DAG, profile or team, the largest share. "
        "`<budget>` is for example `dag.etl.day`, `profile.each.day` or `all.month`.",
    ),
    Metric("taken", "counter", "Workloads received from the scheduler."),
    Metric("started", "counter", "Workloads accepted by Modal, with a function call."),
    Metric("success", "counter", "Workloads with a normal end of their supervisor, for any state of the task."),
    Metric("failed", "counter", "Failed workloads, for any reason."),
    Metric("over", "counter", "Workloads no longer expected by Airflow at their end."),
    Metric("adopted", "counter", "Workloads adopted from another scheduler."),
    Metric(
        "resubmitted", "counter", "Workloads submitted again before a container had begun them. This uses no retry."
    ),
    Metric(
        "lost",
        "counter",
        "Workloads with an abnormal end, by cause.",
        "cause",
        "the causes in [Lost work](lost-work.md), e.g. `out-of-memory`; `other` for unknown causes from a newer worker",
    ),
    Metric(
        "run_again",
        "counter",
        "Tasks that run again after the loss of their container, without using a retry, by cause.",
        "cause",
        'the causes with "without a retry" in [Lost work](lost-work.md), e.g. `container-lost`',
    ),
    Metric(
        "over_budget",
        "counter",
        "Budgets that were used up, each once in its period, by action.",
        "action",
        "`warn`, `hold`, `refuse`",
    ),
    Metric("refused_by_budget", "counter", "Workloads that failed because a budget refuses them."),
    Metric("engine_restarts", "counter", "Restarts of the engine's thread after a failure."),
    Metric(
        RPC,
        "counter",
        "Calls of Modal's API by the executor. A call with the SDK's automatic retries counts once.",
        "result",
        f"`RPC.result`, e.g. `FunctionMap.ok`; results: {_RESULTS}, `{Result.ERROR.value}` (all others)",
    ),
)

_COUNTERS = {metric.name: metric.tag for metric in METRICS if metric.kind == "counter"}


@dataclass
class Metrics:
    """What has come together since the last time of sending. ``time`` and ``count`` may be called on any thread."""

    stats: Callable[[], Any]
    """Returns what has Airflow's ``incr``, ``gauge`` and ``timing``; called on the engine's thread."""
    team: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    """By name, or name and tag's value with a dot between: all that happened so far."""
    rpcs: Counter[tuple[str, Result]] = field(default_factory=Counter)
    _timings: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=KEPT_TIMINGS))
    _sent: Counter[str] = field(default_factory=Counter)
    _rpcs_sent: Counter[tuple[str, Result]] = field(default_factory=Counter)

    def time(self, name: str, seconds: float) -> None:
        """Remember a duration; a clock that is behind another one is taken to be even with it."""
        self._timings.append((name, max(0.0, seconds)))

    def rpc(self, name: str, error: BaseException | None) -> None:
        """Count a call of Modal's API."""
        self.rpcs[name, result_of(error)] += 1

    async def run(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Send until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(INTERVAL)
                self.send(gauges())
        finally:
            self.send(gauges())

    def send(self, gauges: Mapping[str, float]) -> None:
        """Send what has come together. A metric that cannot be sent is nobody's failure."""
        try:
            self._send(gauges)
        except Exception:
            log.exception("Metrics could not be sent; the next ones may be")

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
            name, _, kind = key.partition(".")
            if new and name in _COUNTERS:
                self._incr(stats, name, new, tags, {_COUNTERS[name]: kind} if kind else {})
        for (rpc, result), total in list(self.rpcs.items()):
            new, self._rpcs_sent[rpc, result] = total - self._rpcs_sent[rpc, result], total
            if new:
                self._incr(stats, RPC, new, tags, {"rpc": rpc, "result": result.value})

    def _incr(self, stats: Any, name: str, number: int, tags: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Count under the plain name with tags, and under a name of its own for each of their values: StatsD without
        tags would see one sum only."""
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

`make docs` generates this page from the table in the code.

You also get Airflow's own metrics of an executor: `executor.open_slots`, `executor.queued_tasks`,
`executor.running_tasks`, and `scheduler.executor_heartbeat_duration` since Airflow 3.3. The metrics below go through
Airflow's stats to the target in `[metrics]`: StatsD, Datadog or OpenTelemetry. The executor's engine sends them once a
second, never the scheduler's thread.

If an executor belongs to a team, its metrics have the tag `team_name`. The executor sends a counter with its own tag
twice: under its plain name with the tag, and with the value of the tag at the end of its name. So you can use a StatsD
without tags.

Timers are in milliseconds. With OpenTelemetry, they are histograms since Airflow 3.3, and gauges of the last value
before. OpenTelemetry's SDK writes all names in lower case, `modal_executor.rpc.functionmap.ok`. Airflow puts its prefix
(`airflow.` by default) before every name. [Dashboards and alerts](monitoring.md) shows the names in Prometheus.

| metric | kind | meaning | values of the tag |
|---|---|---|---|
"""


_RELAYS = """
## Relays

Each [relay](relay.md) sends its own, every 10 seconds.

| metric | kind | meaning |
|---|---|---|
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
    return _HEAD + "\n".join(lines) + "\n" + _relays()


def _relays() -> str:
    rows = [f"| `{PREFIX}.relay.{name}` | {kind} | {meaning} |" for name, kind, meaning in RELAY_METRICS]
    return _RELAYS + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
