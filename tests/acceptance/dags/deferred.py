"""A task in two parts, with a trigger between them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator


class InTwoParts(BaseOperator):
    """Says something, waits in the triggerer, says something else in another function call."""

    def execute(self, context: Any) -> None:
        self.log.info("before the trigger")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=2)), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> None:
        self.log.info("after the trigger")


with DAG("deferred", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    InTwoParts(task_id="in_two_parts")
