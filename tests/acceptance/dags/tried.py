"""A DAG whose author tries it out with the executor: `python tried.py`."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
def tried() -> None:
    @task
    def say_where() -> str:
        print(f"this file is {__file__}")
        return "here"

    @task
    def answer(where: str) -> str:
        return f"{where} and there"

    answer(say_where())  # type: ignore[arg-type]  # An XComArg, which becomes its text.


tried_out = tried()

if __name__ == "__main__":
    run = tried_out.test(use_executor=True)
    print(f"run {run.run_id} ended: {run.state}")
