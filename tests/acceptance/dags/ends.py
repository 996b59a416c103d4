"""Tasks that somebody or something ends: they wait until then."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from airflow.sdk import DAG, task

LONGEST_WAIT = 120.0


def wait() -> None:
    """Say that this has begun, and wait for the end."""
    print("waiting for its end", flush=True)
    time.sleep(LONGEST_WAIT)


#: More cores than there are: cut to all there are, so that two such containers cannot run at once. With different
#: figures they are not one pool of containers.
ALL_CORES, ALL_CORES_TOO = {"modal": {"cpu": 1000.0}}, {"modal": {"cpu": 999.0}}

for dag_id, run_timeout, task_timeout, executor_config in (
    ("ends_by_hand", None, None, {}),
    ("ends_with_its_run", timedelta(seconds=12), None, {}),
    ("ends_in_time", None, timedelta(seconds=2), {}),
    ("ends_greedily", None, None, ALL_CORES),
    ("ends_unbegun", None, None, ALL_CORES_TOO),
):
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1), catchup=False, dagrun_timeout=run_timeout):
        task(task_id="wait", execution_timeout=task_timeout, executor_config=executor_config)(wait)()
