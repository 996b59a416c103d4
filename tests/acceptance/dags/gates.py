"""Tasks that wait until a test lets them go on, so that a test can do something while they run."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta

from airflow.sdk import DAG, Variable, get_current_context, task

LONGEST_WAIT = 120.0


def pass_gate() -> str:
    """Say where this is, wait until the Variable named by the run's configuration says ``open``, say so."""
    context = get_current_context()
    gate = (context["dag_run"].conf or {})["gate"]
    print(f"waiting at {gate}, try {context['ti'].try_number}", flush=True)
    deadline = time.monotonic() + LONGEST_WAIT
    while Variable.get(gate, default="closed") != "open":
        if time.monotonic() > deadline:
            raise TimeoutError(f"{gate} stayed closed for {LONGEST_WAIT:.0f} s")
        time.sleep(0.2)
    print(f"through {gate}", flush=True)
    return os.environ.get("MODAL_TASK_ID", "")


#: Later than any test waits: what runs again by then uses no retry.
FAR = timedelta(hours=1)

for dag_id, retries, retry_delay, config in (
    ("gate_once", 0, timedelta(seconds=1), {}),
    ("gate_twice", 1, timedelta(seconds=1), {}),
    ("lost_with_retry", 1, FAR, {}),
    ("lost_with_option", 0, FAR, {"modal": {"infrastructure_retries": 1}}),
):
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
        task(task_id="pass_gate", retries=retries, retry_delay=retry_delay, executor_config=config)(pass_gate)()
