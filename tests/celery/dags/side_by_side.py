"""DAGs with tasks on two executors: Celery by default, and Modal for those that need a GPU."""

from __future__ import annotations

import os
import time
from datetime import datetime

from airflow.sdk import DAG, Variable, get_current_context, task

LONGEST_WAIT = 150.0


@task
def extract() -> list[int]:
    print("told: extracted on Celery", flush=True)
    return [1, 2, 3]


@task(executor="ModalExecutor", executor_config={"modal": {"gpu": "T4", "memory": "512MiB"}})
def train(numbers: list[int]) -> dict[str, object]:
    print("told: trained on Modal with", numbers, flush=True)
    return {"sum": sum(numbers), "container": os.environ.get("MODAL_TASK_ID", "")}


@task(executor="modalflow.executor.modal_executor.ModalExecutor", queue="etl")
def score(number: int) -> int:
    print("told: scored on Modal", number, "in profile", os.environ.get("WHERE", ""), flush=True)
    return 10 * number


@task(queue="reports")
def report(model: dict[str, object], scores: list[int]) -> list[object]:
    found = [model["sum"], sorted(scores), os.environ.get("MODAL_TASK_ID", "no container")]
    print("told: reported on Celery", found[:2], flush=True)
    return found


with DAG("side_by_side", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    extracted = extract()
    report(train(extracted), score.expand(number=extracted))  # type: ignore[arg-type]  # XComArgs.


def pass_gate() -> str:
    """Wait until the Variable `gate` says ``open``."""
    print("told: waiting, try", get_current_context()["ti"].try_number, flush=True)
    deadline = time.monotonic() + LONGEST_WAIT
    while Variable.get("gate", default="closed") != "open":
        if time.monotonic() > deadline:
            raise TimeoutError("the gate stayed closed")
        time.sleep(0.3)
    print("told: through", flush=True)
    return os.environ.get("MODAL_TASK_ID", "no container")


with DAG("during_a_restart", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    for executor in ("CeleryExecutor", "ModalExecutor"):
        name = executor.removesuffix("Executor").lower()
        first = task(task_id=f"on_{name}", executor=executor)(pass_gate)()
        task(task_id=f"after_{name}", executor=executor)(lambda where: print("told: after", where))(first)
