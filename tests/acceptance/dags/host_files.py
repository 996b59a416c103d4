"""Tasks that need the plugins and local settings of the Airflow host."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from typing import Any

from airflow.sdk import DAG

acme: Any = import_module("acme_plugin")

with DAG("host_files", schedule=acme.Once(), start_date=datetime(2026, 1, 1)):
    acme.Shout(task_id="macro", text="doubled {{ macros.acme.acme_double(21) }}")
    acme.Shout(task_id="policed", text="no policy")
    acme.Shout(task_id="scheduled", text="{{ dag.timetable.description }}")
