"""A plugin of the Airflow host's: a macro, an operator, and a listener."""

from __future__ import annotations

import sys
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperator
from airflow.timetables.simple import OnceTimetable


class Shout(BaseOperator):
    """Prints what it was given."""

    template_fields = ("text",)

    def __init__(self, text: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.text = text

    def execute(self, context: Any) -> str:
        print(self.text.upper())
        return self.text


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    if getattr(task_instance, "dag_id", "") == "host_files":
        print("the listener saw", task_instance.task_id)


def acme_double(number: int) -> int:
    return 2 * number


class Once(OnceTimetable):
    """A timetable under a name that Airflow knows from this plugin alone."""

    description = "Once, for Acme"


class AcmePlugin(AirflowPlugin):
    name = "acme"
    macros = [acme_double]  # noqa: RUF012
    listeners = [sys.modules[__name__]]  # noqa: RUF012
    timetables = [Once]  # noqa: RUF012
