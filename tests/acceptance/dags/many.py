"""One task, mapped over as many indexes as the run's configuration asks for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, task


@task
def count(**context: Any) -> list[int]:
    return list(range(context["dag_run"].conf["many"]))


@task
def square(n: int) -> int:
    return n * n


@task
def add_up(squares: list[int]) -> int:
    return sum(squares)


with DAG("many", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=1000):
    add_up(square.expand(n=count()))  # type: ignore[arg-type]  # An XComArg is what it stands for.
