"""Tasks that use the plugins, local settings and modules of an Airflow host."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("d", schedule=None):
    BashOperator(task_id="macro", bash_command="echo doubled {{ macros.acme.acme_double(21) }}")

    @task
    def operator() -> None:
        acme_ops: Any = import_module("acme_ops")

        print(acme_ops.Shout(task_id="a").execute({}))

    @task
    def slow() -> None:
        time.sleep(60)
        print("policy did not hold")

    @task
    def writes_xcom() -> list[int]:
        return [1, 2, 3]

    @task
    def state() -> None:
        """Print what the plugins know, and change it."""
        acme_state: Any = import_module("acme_state")

        acme_state.SEEN.append(os.getpid())
        print("seen", len(acme_state.SEEN), "threads", acme_state.running(), "reads", acme_state.GREETING)

    @task
    def home() -> None:
        from pathlib import Path

        acme_ops: Any = import_module("acme_ops")

        folder = Path(os.environ["AIRFLOW_HOME"])
        print("sql", (folder / "include" / "query.sql").read_text(), acme_ops.ORIGIN)

    tasks: list[Any] = [operator(), slow(), writes_xcom(), state(), home()]
