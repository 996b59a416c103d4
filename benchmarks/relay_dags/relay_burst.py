"""The workload of ``make bench-relay-burst``: as many tasks as the run's configuration says, all at once."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from airflow.sdk import DAG, task


@task
def count(**context: Any) -> list[int]:
    return list(range(context["dag_run"].conf["tasks"]))


@task
def large(**context: Any) -> str:
    """Return a value of the configured size."""
    return "x" * int(context["dag_run"].conf["bytes"])


@task
def wait(n: int, **context: Any) -> None:
    """End after the configured time; at once without one."""
    time.sleep(context["dag_run"].conf["seconds"])


@task
def read(n: int, value: str) -> None:
    """End at once: the value is an argument."""


with DAG("waits", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=2000):
    wait.expand(n=count())

with DAG("reads", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=2000):
    read.partial(value=large()).expand(n=count())
