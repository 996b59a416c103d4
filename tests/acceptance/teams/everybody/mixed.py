"""DAGs with tasks on two executors: LocalExecutor on Airflow's host, and the default one, with the alias ``modal``."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, task


@task(executor="LocalExecutor")
def at_home() -> str:
    print("at home")
    return os.environ.get("MODAL_TASK_ID", "no container")


@task(executor="modal")
def away(from_where: str) -> list[str]:
    print(f"away, as told by {from_where}")
    return [from_where, os.environ.get("MODALFLOW_APP", "no app")]


@task(executor="ModalExecutor")
def away_by_class_name() -> str:
    return os.environ.get("MODALFLOW_APP", "no app")


@task(executor="LocalExecutor")
def at_home_again(seen: list[str], app: str) -> list[str]:
    return [*seen, app, os.environ.get("MODALFLOW_APP", "no app")]


with DAG("mixed", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    at_home_again(away(at_home()), away_by_class_name())  # type: ignore[arg-type]  # XComArgs are what they stand for.

with DAG("all_away", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, default_args={"executor": "modal"}):
    task(task_id="by_default_args")(lambda: os.environ.get("MODALFLOW_APP", "no app"))()

with DAG("at_home_alone", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    at_home()
