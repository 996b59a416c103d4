"""Tasks that wait: a sensor that gives its container back between two looks, and one in the triggerer."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, PokeReturnValue, Variable, get_current_context, task


def look() -> PokeReturnValue:
    """Whether the Variable named by the run's configuration says ``open``."""
    context: Any = get_current_context()
    is_open = Variable.get(context["dag_run"].conf["gate"], default="closed") == "open"
    print(f"looked: {'open' if is_open else 'closed'}", flush=True)
    return PokeReturnValue(is_open, xcom_value=os.environ["MODAL_TASK_ID"])


@task
def go_on(seen_in: str) -> str:
    return f"seen in {seen_in}"


class EndedByTrigger(BaseOperator):
    """Waits in the triggerer, where it also ends."""

    def execute(self, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1), end_from_trigger=True), method_name="never_called")


def look_in_vain() -> bool:
    return False


with DAG("patient", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    sensor = PythonSensor(task_id="look", python_callable=look, mode="reschedule", poke_interval=1, timeout=120)
    go_on(sensor.output)  # type: ignore[arg-type]  # An XComArg is what it stands for.
    EndedByTrigger(task_id="defer")
    PythonSensor(
        task_id="give_up", python_callable=look_in_vain, mode="reschedule", poke_interval=1, timeout=1, soft_fail=True
    )
