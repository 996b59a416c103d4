"""Metrics: Airflow's of an executor and the executor's own arrive where ``[metrics]`` says."""

from __future__ import annotations

import pytest

from modalflow.demo.modal_stack import ModalStack
from modalflow.executor.reporting.metrics import METRICS, PREFIX
from modalflow.reasons import Cause
from tests.acceptance.airflow_on_modal import finish_run, start_run, wait_at_gate
from tests.acceptance.metrics_listener import MetricsListener
from tests.airflows import AIRFLOW
from tests.support import wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="times no heartbeats, and sends the last value of a timer only"),
]

#: Without those of budgets: this stack has none.
GAUGES = [f"{PREFIX}.{metric.name}" for metric in METRICS if metric.kind == "gauge" and "<" not in metric.name]
TIMERS = [f"{PREFIX}.{metric.name}" for metric in METRICS if metric.kind == "timer"]
LOST = Cause.CONTAINER_LOST.value
#: By how much a killed try and one that succeeds raise each counter; OpenTelemetry has no capitals in names.
RAISED = {"taken": 2, "started": 2, "failed": 1, "success": 1, f"lost.{LOST}": 1, "rpc.functionmap.ok": 2}
#: More than any step of the two tries takes: seconds sent as milliseconds, or the other way round, are outside.
MILLISECONDS = (0.5, 100_000.0)


def test_a_task_is_seen_in_them_from_its_start_to_its_end(stack: ModalStack, metrics: MetricsListener) -> None:
    """A task whose container is killed and that succeeds in its second try: a listener sees it run, sees both ends with
    the cause of the first, and how long each step took in milliseconds."""
    # Totals of a scheduler that another test killed would be taken for this one's.
    metrics.forget()
    wait_until(lambda: all(metrics.points(name) for name in GAUGES), 30.0, "the first metrics")
    before = {name: metrics.value(f"{PREFIX}.{name}") for name in RAISED}
    by_tag = metrics.value(f"{PREFIX}.lost", cause=LOST)
    timed = {name: (metrics.times(name), metrics.value(name)) for name in TIMERS}

    run_id = start_run(stack, "gate_twice", gate="metrics")
    first = wait_at_gate(stack, "gate_twice", run_id)
    wait_until(lambda: metrics.value("executor.running_tasks", executor_class_name="ModalExecutor"), 30.0, "it running")
    wait_until(lambda: metrics.value(f"{PREFIX}.in_flight"), 30.0, "it in flight")
    assert metrics.value("executor.open_slots", executor_class_name="ModalExecutor") > 0
    assert metrics.points("executor.queued_tasks", executor_class_name="ModalExecutor")
    stack.local.faults.now("kill", container=first.hostname)
    stack.airflow.api.set_variable("metrics", "open")
    assert finish_run(stack, "gate_twice", run_id) == "success"

    def raised() -> dict[str, float]:
        return {name: metrics.value(f"{PREFIX}.{name}") - start for name, start in before.items()}

    wait_until(lambda: all(raised()[name] >= by for name, by in RAISED.items()), 30.0, f"{RAISED}")
    assert metrics.value(f"{PREFIX}.lost", cause=LOST) == by_tag + 1
    wait_until(lambda: not metrics.value(f"{PREFIX}.in_flight"), 30.0, "nothing in flight")
    # The killed try is not delivered to Airflow: the task runs again without using a retry.
    expected = {name: times + (1 if name.endswith("delivery_latency") else 2) for name, (times, _) in timed.items()}
    wait_until(lambda: all(metrics.times(name) >= times for name, times in expected.items()), 30.0, f"{expected}")
    # No less: an outcome of an earlier test may have been exported since.
    for name, (_, total) in timed.items():
        assert MILLISECONDS[0] < metrics.value(name) - total < MILLISECONDS[1], name
        assert {point.unit for point in metrics.points(name)} == {"ms"}
    assert metrics.times("scheduler.executor_heartbeat_duration", executor="ModalExecutor") > 0
