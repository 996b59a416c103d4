"""The tasks of ``make bench-sandboxes``."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("d", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):

    @task
    def nothing() -> None:
        """End at once."""

    nothing()
    BashOperator(task_id="bash", bash_command="true")
