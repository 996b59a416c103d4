"""The workloads of ``make bench-worker``, once for each executor: ``flat_local``, ``row_modal`` and so on."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task
from airflow.sdk.bases.operator import chain

EXECUTORS = {"local": "TimedLocalExecutor", "modal": "modal"}
FLAT, ROW, SLEEPERS = 200, 12, 60

#: Seconds between two tasks that are apart: then a container has prepared the processes of the next one.
PAUSE = 2.0


@task
def nothing(n: int = 0) -> None:
    """End at once."""


@task
def sleep_a_second(n: int) -> None:
    time.sleep(1)


@task
def pause(n: int) -> None:
    time.sleep(PAUSE)


def load(name: str) -> DAG:
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=1000)


for kind, executor in EXECUTORS.items():
    with load(f"flat_{kind}"):
        nothing.override(executor=executor).expand(n=list(range(FLAT)))
    with load(f"row_{kind}"):
        chain(*(nothing.override(task_id=f"nothing_{n}", executor=executor)() for n in range(ROW)))
    with load(f"apart_{kind}"):
        pairs = [
            (
                pause.override(task_id=f"pause_{n}", executor=EXECUTORS["local"])(n),
                nothing.override(task_id=f"nothing_{n}", executor=executor)(),
            )
            for n in range(ROW)
        ]
        chain(*(each for pair in pairs for each in pair))
    with load(f"bash_{kind}"):
        # Without a HOME: bash reads ~/.bashrc if its standard input is a socket, as Airflow's is.
        given: dict[str, Any] = {"executor": executor, "env": {"HOME": "/nonexistent"}, "append_env": True}
        chain(*(BashOperator(task_id=f"bash_{n}", bash_command="true", **given) for n in range(ROW)))
    with load(f"sleep_{kind}"):
        sleep_a_second.override(executor=executor).expand(n=list(range(SLEEPERS)))
    with load(f"warm_{kind}"):
        nothing.override(executor=executor).expand(n=list(range(16)))
