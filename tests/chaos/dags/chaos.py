"""The DAGs of the matrix and of the soak: every execution of every phase of a task is told to the tally.

Each is there twice: with a GPU that a test can keep occupied, so that its tasks wait for capacity.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException

GPU = {"modal": {"gpu": "T4"}}
#: For tasks that can bear that one try is lost, with one to spare.
RETRIES: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=1)}


@contextmanager
def alone(ti: Any) -> Iterator[bool]:
    """Hold a lock for the task instance, whatever its try; False if another process has it. A kill releases it."""
    name = sha256(f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}".encode()).hexdigest()
    with (Path(os.environ["CHAOS_TALLY"]).parent / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def visit(context: Any, phase: str) -> str:
    """Tell the tally of this execution, and wait for what it answers. (tests/chaos/tally.py is its other end.)"""
    with alone(context["ti"]) as is_alone:
        return _visit(context, phase, beside=not is_alone)


def _visit(context: Any, phase: str, *, beside: bool) -> str:
    ti = context["ti"]
    said = {
        "cell": (context["dag_run"].conf or {}).get("cell", ""),
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "phase": phase,
        "container": os.environ.get("MODAL_TASK_ID", ""),
        "pid": os.getpid(),
        "beside": beside,
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(600.0)
        connection.connect(os.environ["CHAOS_TALLY"])
        connection.sendall(json.dumps(said).encode() + b"\n")
        with connection.makefile() as answers:
            answer = answers.readline().strip()
    if answer == "eat":
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 20) * 16))
    return answer


class Visit(BaseOperator):
    """Comes, and goes when it may. ``item`` is what it is mapped over."""

    def __init__(self, item: int = 0, **how: Any) -> None:
        super().__init__(**how)
        self.item = item

    def execute(self, context: Any) -> None:
        visit(context, "execute")


class InTwoParts(BaseOperator):
    """Waits in the triggerer between two phases."""

    def execute(self, context: Any) -> None:
        visit(context, "execute")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> None:
        visit(context, "resume")


class Looks(BaseSensorOperator):
    """Is rescheduled once."""

    def poke(self, context: Any) -> bool:
        number = context["task_reschedule_count"]
        visit(context, f"poke-{number}")
        return bool(number >= 1)


LOOKS: dict[str, Any] = {"poke_interval": 1.0, "mode": "reschedule", "timeout": 600.0}

#: For a task without retries that may run again after a loss.
STATED = {"infrastructure_retries": 3}
#: For a task whose retries count every loss.
SWITCHED_OFF = {"infrastructure_retries": 0}
PLACES: dict[str, dict[str, Any]] = {"": {}, "_gpu": {"executor_config": GPU}}

for suffix, place in PLACES.items():
    what: dict[str, Any] = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}
    with DAG(f"chaos_pair{suffix}", **what):
        Visit(task_id="once", **place)
        Visit(task_id="again", **RETRIES, **place)
        own = place.get("executor_config", {}).get("modal", {})
        Visit(task_id="stated", executor_config={"modal": {**STATED, **own}})
        Visit(task_id="counted", **{**RETRIES, "retries": 1}, executor_config={"modal": {**SWITCHED_OFF, **own}})
    with DAG(f"chaos_mapped{suffix}", **what):
        Visit.partial(task_id="mapped", **RETRIES, **place).expand(item=[1, 2, 3])
    with DAG(f"chaos_phases{suffix}", **what):
        InTwoParts(task_id="deferred", **RETRIES, **place)
        Looks(task_id="rescheduled", **LOOKS, **RETRIES, **place)
    with DAG(f"chaos_phases_once{suffix}", **what):
        InTwoParts(task_id="deferred", **place)
        Looks(task_id="rescheduled", **LOOKS, **place)

# Many tasks, for the soak.

#: For tasks that are to succeed whatever is done to them.
MANY_RETRIES: dict[str, Any] = {"retries": 8, "retry_delay": timedelta(seconds=1)}


class Fails(BaseOperator):
    """Comes, and fails, as it would without any fault."""

    def execute(self, context: Any) -> None:
        visit(context, "execute")
        raise AirflowFailException("this task always fails")


many: dict[str, Any] = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    "max_active_tasks": 64,
    "max_active_runs": 64,
}
with DAG("soak_mapped", **many):
    Visit.partial(task_id="mapped", **MANY_RETRIES).expand(item=list(range(40)))
with DAG("soak_plain", **many):
    for number in range(9):
        Visit(task_id=f"again_{number}", **MANY_RETRIES)
    for number in range(10):
        Visit(task_id=f"once_{number}")
    Fails(task_id="fails")
with DAG("soak_phases", **many):
    for number in range(5):
        InTwoParts(task_id=f"deferred_{number}", **MANY_RETRIES)
        Looks(task_id=f"rescheduled_{number}", **LOOKS, **MANY_RETRIES)
