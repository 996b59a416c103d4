"""Something that is set up, used, and taken down whatever becomes of its use."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, setup, task, teardown


@setup
def put_up() -> str:
    print("the tent is up")
    return "tent"


@task
def camp(what: str) -> None:
    # Here, so that the DAGs of that file are not taken for this one's.
    from gates import pass_gate  # type: ignore[import-not-found]  # Beside this file, in the bundle.

    print(f"camping in the {what}")
    pass_gate()


@teardown
def take_down(what: str) -> str:
    print(f"the {what} is down")
    return os.environ["MODAL_TASK_ID"]


with DAG("tidy", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    tent = put_up()
    camp(tent) >> take_down(tent).as_teardown(setups=tent)
