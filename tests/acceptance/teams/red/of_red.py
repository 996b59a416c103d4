"""What team red runs, in the team's own worker app."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, task


@task
def say_where() -> str:
    print("this is team red")
    return os.environ.get("MODALFLOW_APP", "no app")


with DAG("of_red", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    say_where()
