"""The workload of ``make bench-relay-tasks``: no-op tasks, one after the other."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, task
from airflow.sdk.bases.operator import chain

LENGTH = 12


@task
def nothing() -> None:
    """End at once."""


with DAG("row", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    chain(*(nothing.override(task_id=f"nothing_{number}")() for number in range(LENGTH)))
