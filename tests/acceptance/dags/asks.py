"""Tasks that ask for something, in ``executor_config`` or by their queue, some by what does not exist."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from modalflow import modal_config


@task(executor_config=modal_config(memory=512, env={"GREETING": "good morning"}))
def ask_well() -> str:
    return os.environ.get("GREETING", "nothing")


@task(executor_config={"modal": {"gpus": "T4"}})
def ask_badly() -> None:
    """Never runs: the key is ``gpu``."""


@task(queue="etl", executor_config=modal_config(env={"WHO": "task"}))
def ask_elsewhere() -> list[str]:
    """Runs on another profile."""
    profile = json.loads(os.environ["MODALFLOW_PROFILE"])["profile"]
    return [profile, *(os.environ.get(name, "") for name in ("IMAGE", "WHO", "WHERE"))]


@task(queue="gpus")
def ask_nowhere() -> None:
    """Never runs: no profile has that name."""


@task(
    retries=1,
    retry_delay=timedelta(0),
    executor_config=modal_config(memory=(128, 512), memory_growth=4, memory_limit="2GiB"),
)
def ask_for_too_little() -> int:
    """Runs out of memory, and has enough in its second try."""
    eaten = bytearray(900 << 20)
    # Until the control plane notices.
    time.sleep(2)
    return len(eaten)


with DAG("asks", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    ask_well()
    ask_badly()
    ask_elsewhere()
    ask_nowhere()
    ask_for_too_little()
