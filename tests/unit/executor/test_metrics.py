"""Metrics: what happens is sent once, under the documented names, and never by whom it happens to."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from modal import exception

from modalflow.airflow_compat import scheduler
from modalflow.executor.reporting.metrics import METRICS, PREFIX, SUBMIT_LATENCY, Metrics, Result, page, result_of
from modalflow.reasons import Cause


class Sink:
    """Stands for Airflow's stats."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, dict[str, str]]] = []

    def incr(self, stat: str, count: int, *, tags: dict[str, str]) -> None:
        self.sent.append((stat, count, tags))

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        self.sent.append((stat, value, tags))

    def timing(self, stat: str, dt: datetime.timedelta, *, tags: dict[str, str]) -> None:
        self.sent.append((stat, dt.total_seconds(), tags))


def test_counts_are_sent_once_and_by_what_is_new() -> None:
    """A counter of a metrics backend adds up what it gets: each event reaches it once."""
    sink = Sink()
    metrics = Metrics(lambda: sink)
    metrics.counts["taken"] += 3
    metrics.send({})
    metrics.send({})
    metrics.counts["taken"] += 1
    metrics.send({})
    assert sink.sent == [(f"{PREFIX}.taken", 3, {}), (f"{PREFIX}.taken", 1, {})]


def test_kinds_are_tags_and_names() -> None:
    """Whoever keeps tags and whoever drops them can tell causes, RPCs and teams apart."""
    sink = Sink()
    metrics = Metrics(lambda: sink, team="blue")
    metrics.counts[f"lost.{Cause.OUT_OF_MEMORY.value}"] += 1
    metrics.rpc("FunctionMap", None)
    metrics.rpc("FunctionMap", exception.ResourceExhaustedError("slow down"))
    metrics.send({"in_flight": 2})
    assert sink.sent == [
        (f"{PREFIX}.in_flight", 2, {"team_name": "blue"}),
        (f"{PREFIX}.lost", 1, {"team_name": "blue", "cause": "out-of-memory"}),
        (f"{PREFIX}.lost.out-of-memory", 1, {"team_name": "blue"}),
        (f"{PREFIX}.rpc", 1, {"team_name": "blue", "rpc": "FunctionMap", "result": "ok"}),
        (f"{PREFIX}.rpc.FunctionMap.ok", 1, {"team_name": "blue"}),
        (f"{PREFIX}.rpc", 1, {"team_name": "blue", "rpc": "FunctionMap", "result": "exhausted"}),
        (f"{PREFIX}.rpc.FunctionMap.exhausted", 1, {"team_name": "blue"}),
    ]


def test_durations_are_never_negative() -> None:
    """A container whose clock is ahead did not end in the future."""
    sink = Sink()
    metrics = Metrics(lambda: sink)
    metrics.time(SUBMIT_LATENCY, 0.25)
    metrics.time(SUBMIT_LATENCY, -3.0)
    metrics.send({})
    assert [value for _, value, _ in sink.sent] == [0.25, 0.0]


def test_broken_backend_is_nobodys_failure(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be sent is logged, and the engine goes on."""
    metrics = Metrics(lambda: None)
    metrics.counts["taken"] += 1
    metrics.send({"in_flight": 1})
    assert "Metrics could not be sent" in caplog.text


async def test_last_ones_are_sent_at_the_end() -> None:
    """What a short-lived executor did is not lost with it."""
    sink = Sink()
    metrics = Metrics(lambda: sink)
    running = asyncio.create_task(metrics.run(dict))
    await asyncio.sleep(0)
    metrics.counts["success"] += 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sink.sent == [(f"{PREFIX}.success", 1, {})]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, Result.OK),
        (exception.AuthError("x"), Result.REFUSED),
        (exception.ServiceError("x"), Result.UNAVAILABLE),
        (TimeoutError(), Result.TIMEOUT),
        (asyncio.CancelledError(), Result.CANCELLED),
        (ValueError("x"), Result.ERROR),
    ],
)
def test_results_are_a_closed_set(error: BaseException | None, result: Result) -> None:
    """Whatever an RPC raises has one of a few names, so that dashboards can be made."""
    assert result_of(error) is result


def test_they_go_where_airflows_own_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's stats take them, whichever backend is configured; the executor's own gauges pass the same way."""
    sent: list[str] = []
    stats = scheduler.stats()
    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(stats, kind, lambda stat, *args, **kwargs: sent.append(stat))
    metrics = Metrics(scheduler.stats)
    metrics.counts["taken"] += 1
    metrics.time(SUBMIT_LATENCY, 0.1)
    metrics.send({"in_flight": 0})
    assert set(sent) == {f"{PREFIX}.{name}" for name in ("taken", "submit_latency", "in_flight")}
    BaseExecutor(parallelism=1)._emit_metrics(1, 0, 0)  # type: ignore[no-untyped-call]  # untyped in Airflow
    assert "executor.open_slots" in sent


def test_page_is_the_table() -> None:
    """docs/metrics.md says what is sent. `make docs` writes it anew."""
    written = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert written == page()
    assert all(f"`{PREFIX}.{metric.name}`" in written for metric in METRICS)
