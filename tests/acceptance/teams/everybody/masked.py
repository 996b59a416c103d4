"""A DAG that shows what the host's configuration calls sensitive, by the same tasks on either executor."""

from __future__ import annotations

import logging
from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Connection, Variable, task


def show() -> None:
    """In every way in which a task can put something into its log."""
    pin, extra = Variable.get("door_pin"), Connection.get("gate").extra_dejson
    print("printed:", pin, extra)
    logging.getLogger("mine").warning("logged: %s %s", pin, extra)
    raise ValueError(f"raised: {pin}")


with DAG("masked", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    for place, executor in (("home", "LocalExecutor"), ("away", "modal")):
        task(task_id=f"show_{place}", executor=executor)(show)()
        BashOperator(
            task_id=f"bash_{place}",
            executor=executor,
            bash_command="echo rendered: $PIN; echo {{ var.value.door_pin }}",
            env={"PIN": "{{ var.value.door_pin }}"},
            append_env=True,
        )
