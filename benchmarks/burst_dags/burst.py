"""The workload of ``make bench-burst``: as many no-op tasks as the run's configuration says, all at once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, task


@task
def count(**context: Any) -> list[int]:
    return list(range(context["dag_run"].conf["tasks"]))


@task
def nothing(n: int) -> None:
    """End at once."""


with DAG("burst", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=2000):
    nothing.expand(n=count())
