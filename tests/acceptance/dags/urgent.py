"""Tasks that compete: for the order by their priorities, and for the slots of a pool."""

from __future__ import annotations

import time
from datetime import datetime

from airflow.sdk import DAG, task

#: Task → priority weight, in an order that is neither rising nor falling.
WEIGHTS = {"middling": 50, "least": 1, "most": 100, "second": 90, "low": 10, "high": 80}


def run_for_a_moment(n: int = 0) -> list[float]:
    """When it began and when it ended."""
    began = time.time()
    time.sleep(0.5)
    return [began, time.time()]


with DAG("urgent", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    for name, weight in WEIGHTS.items():
        task(task_id=name, pool="closed_at_first", priority_weight=weight, weight_rule="absolute")(run_for_a_moment)()

with DAG("narrow", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    task(task_id="pass_through", pool="two_at_a_time")(run_for_a_moment).expand(n=list(range(6)))
