"""Budgets with a real executor, a deployed worker and its containers: what is used up, held, kept and shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from modalflow import control_plane
from modalflow.emulator.local import LocalModal
from modalflow.executor.modal_executor import BUDGET_EVENT, WAITING_EVENT, ModalExecutor
from modalflow.names import Names
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.deploy.profile import Profile
from modalflow.worker.deploy.worker import Worker
from tests.command_line import CommandLine
from tests.driving import Driver

NAMES = Names("budgets")
#: A command costs 1.7 millionths of a dollar a second.
BUDGETS = [
    {"dag": "driven", "per": "month", "dollars": 0.000008, "action": "hold"},
    {"per": "month", "dollars": 0.000001, "action": "warn"},
]
SETTINGS = {
    "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
    "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
    "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
    "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "0.5",
    "AIRFLOW__MODAL_EXECUTOR__STATUS_INTERVAL": "0.5",
    "AIRFLOW__MODAL_EXECUTOR__BUDGETS": json.dumps(BUDGETS),
}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal(as_default=False) as running, pytest.MonkeyPatch.context() as environment:
        for name, value in (running.env | SETTINGS).items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        deploy(NAMES, bundles={}, worker=Worker(profiles=[Profile("default", max_containers=1, concurrency=1)]))
        yield running


def test_a_budget_that_is_used_up(local: LocalModal, modalflow_cli: CommandLine) -> None:
    """The task that runs goes on to its end. Those in Modal's queue come back, with the reason wherever users see why a
    task waits, and do not begin though a container is free. A second scheduler knows what the first one's task costs,
    and the next one after both knows from the records what was spent."""
    driver = Driver.started()
    try:
        runs = driver.submit("runs", ["sleep", "14"])
        driver.stored_id(runs)
        others = [driver.submit(f"waits-{n}", ["true"]) for n in range(5)]
        engine = driver.executor._engine
        assert engine is not None
        driver.until(lambda: len(engine.wiring.admission) == 5)
        [warning] = [text for _, event, text in driver.task_events if event == BUDGET_EVENT and "all work" in text]
        assert "The budget of all work, $0.000001 a month is used up: $0.000" in warning
        second = Driver.started()
        try:
            key = second.submit("second", ["true"])
            log = second.log_has(key, " s: the budget of DAG driven, $0.000008 a month is used up: $0.00")
            assert "Not submitted to Modal yet, after " in log and "of it by running or just ended tasks" in log
        finally:
            second.executor.terminate()
        assert driver.outcome(runs)[0] == "success"
        for key in others:
            log = driver.log_has(
                key, "Not begun, and taken off Modal's queue: the budget of DAG driven, $0.000008 a month"
            )
            assert "The next month begins at " in log
            driver.until(lambda key=key: driver.event_texts(key, WAITING_EVENT))  # type: ignore[misc]
        status = modalflow_cli.run("status", environ=dict(os.environ)).stdout
        assert "5 tasks held by budgets" in status
        assert status.count("held by the budget of DAG driven, $0.000008 a month") == 5
        cost = modalflow_cli.run("cost", environ=dict(os.environ)).stdout
        [line] = [line for line in cost.splitlines() if "DAG driven" in line]
        assert line.split()[5] == "hold" and line.endswith("used up"), cost
        assert not {*others} - {*driver.executor.running}, "none of them began"
    finally:
        driver.executor.terminate()
    executor = ModalExecutor(parallelism=8)
    executor.start()
    try:
        later = Driver(executor)
        key = later.submit("later", ["true"])
        log = later.log_has(key, "Not submitted to Modal yet, after ")
        assert "the budget of DAG driven, $0.000008 a month is used up: $0.0000" in log
        assert "by running" not in log, "nothing runs any more"
    finally:
        executor.terminate()
