"""Tasks that ask for something in ``executor_config``, one of them by a key that does not exist."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, task


@task(executor_config={"modal": {"memory": 512, "env": {"GREETING": "good morning"}}})
def ask_well() -> str:
    return os.environ.get("GREETING", "nothing")


@task(executor_config={"modal": {"gpus": "T4"}})
def ask_badly() -> None:
    """Never runs: the key is ``gpu``."""


with DAG("asks", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    ask_well()
    ask_badly()
