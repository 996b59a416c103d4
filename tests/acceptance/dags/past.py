"""A task that waits for its own last run."""

from __future__ import annotations

import time
from datetime import datetime

from airflow.sdk import DAG, task


@task(depends_on_past=True)
def after_the_last_one() -> list[float]:
    began = time.time()
    time.sleep(0.5)
    return [began, time.time()]


with DAG("past", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    after_the_last_one()
