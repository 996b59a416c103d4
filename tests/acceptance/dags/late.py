"""A DAG that has always missed its deadlines: one calls back in order, the other fails to."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference


def call_back(context: dict[str, Any], **kwargs: str) -> None:
    """Say where this runs, and that it got what a callback gets."""
    print(f"{kwargs['greeting']} for {context['dag_run']['dag_id']} in {os.environ['MODAL_TASK_ID']}")


def call_back_in_vain(**kwargs: str) -> None:
    """Fail with a reason."""
    raise ConnectionError(f"nobody answers at {kwargs['pager']}")


@task
def be_late() -> str:
    return "too late"


def alert(callback: SyncCallback) -> DeadlineAlert:
    """A deadline that has passed before any run begins."""
    past = DeadlineReference.FIXED_DATETIME(datetime(2020, 1, 1, tzinfo=UTC))
    return DeadlineAlert(reference=past, interval=timedelta(seconds=1), callback=callback)


with DAG(
    "late",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    deadline=[
        alert(SyncCallback(call_back, kwargs={"greeting": "good evening"})),
        alert(SyncCallback(call_back_in_vain, kwargs={"pager": "the office"})),
    ],
):
    be_late()
