"""One task that says hello."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
def hello() -> None:
    @task
    def say_hello() -> str:
        print("hello from a task")
        return "hello"

    say_hello()


hello()
