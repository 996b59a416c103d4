"""Tasks that report what they see of the Airflow host's settings, each once for LocalExecutor and once for Modal."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, Connection, Variable, get_current_context, task

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator
except Exception:  # noqa: BLE001  Airflow before 3.1 has no human in the loop.
    ApprovalOperator = None  # type: ignore[assignment,misc]

#: Where a task runs → its executor; that of the Airflow host without a name is ModalExecutor.
PLACES = {"home": "LocalExecutor", "away": None}
SMALL, LARGE = {"rows": 3}, {"rows": list(range(300))}
ABSENT = "absent"


def report(what: object) -> None:
    """Write what this task found into a file of its own, which the test reads."""
    folder = Path(conf.get("acme", "report_folder"))
    folder.mkdir(parents=True, exist_ok=True)
    task_id = get_current_context()["ti"].task_id
    (folder / f"{task_id}.json").write_text(json.dumps(what, default=str))


def options() -> Any:
    # LocalExecutor hides the database from tasks behind a command that fails, and as_dict() would fail with it.
    conf.remove_option("database", "sql_alchemy_conn_cmd", remove_default=False)
    return conf.as_dict(display_sensitive=True)


def telemetry() -> dict[str, str]:
    """The variables that are part of the host's settings, although they are not Airflow's."""
    return {name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "OPENLINEAGE_"))}


#: If the executor's report of the deferral comes after the trigger's event, Airflow's scheduler fails the task.
LONGER_THAN_A_REPORT = timedelta(seconds=5)


class Defers(BaseOperator):
    """Waits for a trigger, and reports the settings of the process that goes on."""

    def execute(self, context: Any) -> None:
        """Wait in the triggerer."""
        self.defer(trigger=TimeDeltaTrigger(LONGER_THAN_A_REPORT), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> None:
        """Report, in another process than ``execute``."""
        report({"conf": options(), "telemetry": telemetry(), "pid": os.getpid()})


def variable(key: str) -> str:
    return str(Variable.get(key, default=ABSENT))


def password(conn_id: str) -> str:
    try:
        return str(Connection.get(conn_id).password)
    except Exception:  # noqa: BLE001  Each version of Airflow raises another one.
        return ABSENT


def approval_link(ti: Any) -> str:
    if ApprovalOperator is None:
        return ABSENT
    asked = ApprovalOperator(task_id="asked", subject="Go on?")
    return asked.generate_link_to_ui(task_instance=ti)


with DAG("settings_read", schedule=None, start_date=datetime(2025, 12, 1)):

    def see() -> dict[str, Any]:
        context = get_current_context()
        ti, dag = context["ti"], context["dag"]
        report(
            {
                "time zone": f"{dag.timezone} {dag.start_date}",
                "deferrable": TimeDeltaSensor(task_id="waiting", delta=timedelta(0)).deferrable,
                "log_url": ti.log_url.replace(ti.task_id, "TASK"),
                "approval": approval_link(ti).replace(ti.task_id, "TASK"),
                "host_only": variable("host_only"),
                "worker_only": variable("worker_only"),
                "host_conn": password("host_conn"),
                "worker_conn": password("worker_conn"),
                "conf": options(),
                "telemetry": telemetry(),
            }
        )
        return SMALL

    def pass_on() -> dict[str, Any]:
        return LARGE

    def read(*values: Any) -> None:
        report(values)

    def remember() -> None:
        store: Any = get_current_context().get("task_state_store")
        if store is None:
            return report(ABSENT)
        store.set("cursor", {"page": 7})
        report(store.get("cursor"))

    seen, passed = {}, {}
    for place, executor in PLACES.items():
        seen[place] = task(task_id=f"see_{place}", executor=executor)(see)()
        passed[place] = task(task_id=f"pass_{place}", executor=executor)(pass_on)()
        task(task_id=f"remember_{place}", executor=executor)(remember)()
        Defers(task_id=f"defer_{place}", executor=executor)
    for place, executor in PLACES.items():
        task(task_id=f"read_{place}", executor=executor)(read)([*seen.values(), *passed.values()])


def fail() -> None:
    raise RuntimeError("as a user's task fails")


with DAG("settings_mail", schedule=None, start_date=datetime(2025, 12, 1)):
    for place, executor in PLACES.items():
        task(task_id=f"fail_{place}", executor=executor, email="operator@example.com", retries=0)(fail)()
