"""A task that reports which policies and timetables of an Airflow host its container has."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import Any

from airflow.sdk import DAG, get_current_context, task

acme: Any = import_module("acme_timetable")
# Longer than `[core] dagbag_import_timeout` in the test.
time.sleep(0.5)

with DAG("d", schedule=acme.Once()) as dag:

    @task
    def policies() -> None:
        settings: Any = import_module("airflow_local_settings")
        files = [os.path.basename(file) for file in settings.ASKED]  # noqa: PTH119
        print("asked for the timeout of", *sorted(set(files)))
        print("timetable", type(dag.timetable).__name__, "described by", dag.description)
        from airflow.sdk.execution_time.context import context_to_airflow_vars

        print("variables", context_to_airflow_vars(get_current_context()).get("airflow.ctx.acme_team"))

    @task
    def macro(text: str) -> None:
        print(text)

    policies()
    macro("{{ macros.acme.acme_double(21) }}")
