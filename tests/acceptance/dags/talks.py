"""A task that says what time it is, and then much and odd things."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime

from airflow.sdk import DAG, task

#: How often it says the time, and with which pause.
TICKS, PAUSE = 24, 0.25

#: How many lines it then prints as fast as it can.
MANY = 10_000


@task
def talk() -> None:
    for _ in range(TICKS):
        print(f"tick {time.time()}", flush=True)
        time.sleep(PAUSE)
    for number in range(MANY):
        print("number", number)
    print("x" * 1_000_000, flush=True)
    os.write(1, b"no text: \xff\xc3( and \x00\n")
    os.write(2, b"to stderr\n")
    logging.getLogger("talks").warning("a warning of %s", "the task's own", extra={"answer": 42})
    os.write(1, b"no end")


with DAG("talks", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    talk()
