"""The replaced names of Airflow and of its libraries, and the page with all replaced names.

A row has the name, the reason, and the versions; the replacing module imports the row from here. ``python -m
modalflow.airflow_compat.replaced docs/upstream-notes.md`` writes the table of all rows into that page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from modalflow.support import replaced_in_sdk
from modalflow.support.replaced import ReplacedName

_SUPERVISED: Final = "worker.run.supervised"
_SUPERVISOR: Final = "airflow_compat.supervisor"

FINAL_STATE: Final = ReplacedName(
    "airflow.sdk.execution_time.supervisor:ActivitySubprocess.update_task_state_if_needed",
    "The supervisor reports the task's final state to Airflow's API, and does not return it to its caller.",
    _SUPERVISED,
)
HANDLE_REQUEST: Final = ReplacedName(
    "airflow.sdk.execution_time.supervisor:ActivitySubprocess._handle_request",
    "A task that fails while its container is being stopped reports that, although the executor may run it again.",
    "worker.run.stop_notice",
)
TASK_START: Final = ReplacedName(
    "airflow.sdk.api.client:TaskInstanceOperations.start",
    "Whether the API server let a task start decides how a later error is explained.",
    _SUPERVISED,
)
SERVICE_SUBPROCESS: Final = ReplacedName(
    "airflow.sdk.execution_time.supervisor:WatchedSubprocess._service_subprocess",
    "The supervisor waits up to 5 s for the exit of a task that has ended, or 60 s for processes that it left behind.",
    _SUPERVISED,
)
SUPERVISOR_OS: Final = ReplacedName(
    "airflow.sdk.execution_time.supervisor:os",
    "The supervisor forks the task; the worker has forked it before, since a fork is slow in Modal's sandbox.",
    _SUPERVISOR,
    since="3.3",
)
CHILD_STARTED: Final = ReplacedName(
    "airflow.sdk.execution_time.supervisor:ActivitySubprocess._on_child_started",
    "The supervisor sends a heartbeat right after the start, which is a heartbeat for the API already.",
    _SUPERVISED,
)
PARSE: Final = ReplacedName(
    "airflow.sdk.execution_time.task_runner:parse",
    "Airflow logs that a DAG is missing on the worker, but not why.",
    _SUPERVISED,
)
EXECUTE_TASK: Final = ReplacedName(
    "airflow.sdk.execution_time.task_runner:_execute_task",
    "`modalflow replay` offers a debugger where a task fails, or a shell in its place, with its context.",
    "worker.run.terminal.console",
)
REMOVE_TASK_DECORATOR: Final = ReplacedName(
    "airflow.sdk.definitions._internal.decorators:remove_task_decorator",
    "Its module imports libcst, 6 MB that every task would have and that only tasks in another Python need.",
    "worker.run.later_imports",
    since="3.1",
)
INIT_LOG_FILE: Final = ReplacedName(
    "airflow.sdk.log:init_log_file",
    "Airflow writes a task's log to one file, which every commit would upload and every reader download as a whole.",
    "worker.logs.supervised_log",
)
JSON_RENDERER: Final = ReplacedName(
    "structlog.processors:JSONRenderer.__call__",
    "A lone surrogate in a log line raises out of the log call that reports why a task failed.",
    "worker.logs.log_encoding",
)
COMMS_TYPE_ADAPTER: Final = ReplacedName(
    "airflow.sdk.execution_time.comms:TypeAdapter",
    "Every task process builds the same validators anew; the zygote builds them once.",
    "worker.zygote.warmup",
)
TASK_RUNNER_TYPE_ADAPTER: Final = ReplacedName(
    "airflow.sdk.execution_time.task_runner:TypeAdapter",
    "Every task process builds the same validators anew; the zygote builds them once.",
    "worker.zygote.warmup",
)
DAG_BAG_BEFORE_3_2: Final = ReplacedName(
    "airflow.models.dagbag:DagBag.__init__",
    "The reason why a DAG is missing is in a DagBag that Airflow does not return.",
    _SUPERVISOR,
    until="3.1",
)
DAG_BAG: Final = ReplacedName(
    "airflow.dag_processing.dagbag:DagBag.__init__",
    "The reason why a DAG is missing is in a DagBag that Airflow does not return.",
    _SUPERVISOR,
    since="3.2",
)
_SEGFAULTS: Final = (
    "Airflow's handler of SIGSEGV stays after the import of a DAG file, and repeats a later fault forever."
)
LOAD_MODULES_BEFORE_3_2: Final = ReplacedName(
    "airflow.models.dagbag:DagBag._load_modules_from_file", _SEGFAULTS, _SUPERVISOR, until="3.1"
)
LOAD_MODULES: Final = ReplacedName(
    "airflow.dag_processing.importers.python_importer:PythonDagImporter._load_modules_from_file",
    _SEGFAULTS,
    _SUPERVISOR,
    since="3.2",
    until="3.3",
)
LOAD_MODULES_SINCE_3_4: Final = ReplacedName(
    "airflow.sdk.importers.python_importer:PythonDagImporter._load_modules", _SEGFAULTS, _SUPERVISOR, since="3.4"
)
EXECUTE_CALLBACK: Final = ReplacedName(
    "airflow.sdk.execution_time.callback_supervisor:execute_callback",
    "If Airflow cannot put a callback's exception into words, only an exit code is left of it.",
    _SUPERVISOR,
    since="3.3",
)
CONNECTION_TEST_RESULT: Final = ReplacedName(
    "airflow.sdk.api.client:ConnectionTestOperations.update_state",
    "Airflow's database refuses a result with NUL or a lone surrogate, and the test stays RUNNING.",
    _SUPERVISOR,
    since="3.3",
)
SUPERVISOR_WAIT: Final = ReplacedName(
    "airflow.sdk.execution_time.supervisor:ActivitySubprocess.wait",
    "The supervisor does not forward SIGTERM and SIGINT to the task, so that on_kill() would not run.",
    _SUPERVISOR,
    until="3.2",
)
_READ_AT_IMPORT: Final = "Airflow reads it at import; a zygote runs workloads with other values of the setting."
API_TIMEOUT: Final = ReplacedName("airflow.sdk.api.client:API_TIMEOUT", _READ_AT_IMPORT, _SUPERVISOR, since="3.1")
API_CLIENT_INIT: Final = ReplacedName(
    "airflow.sdk.api.client:Client.__init__",
    "Before Airflow 3.1.1 its clients have the timeout of httpx, 5 s, and no setting for it.",
    _SUPERVISOR,
    until="3.1",
)
API_RETRIES: Final = ReplacedName(
    "airflow.sdk.api.client:Client.request.retry.stop.max_attempt_number", _READ_AT_IMPORT, _SUPERVISOR, until="3.3"
)
API_RETRIES_SINCE_3_4: Final = ReplacedName(
    "airflow.sdk.api.client:Client._request_with_retry.retry.stop.max_attempt_number",
    _READ_AT_IMPORT,
    _SUPERVISOR,
    since="3.4",
)
API_WAIT_MIN_OF_3_0: Final = ReplacedName(
    "airflow.sdk.api.client:Client._default_wait.min", _READ_AT_IMPORT, _SUPERVISOR, until="3.0"
)
API_WAIT_MAX_OF_3_0: Final = ReplacedName(
    "airflow.sdk.api.client:Client._default_wait.max", _READ_AT_IMPORT, _SUPERVISOR, until="3.0"
)
API_WAIT_MIN: Final = ReplacedName(
    "airflow.sdk.api.client:Client.request.retry.wait.min", _READ_AT_IMPORT, _SUPERVISOR, since="3.1", until="3.3"
)
API_WAIT_MAX: Final = ReplacedName(
    "airflow.sdk.api.client:Client.request.retry.wait.max", _READ_AT_IMPORT, _SUPERVISOR, since="3.1", until="3.3"
)
API_WAIT_MIN_SINCE_3_4: Final = ReplacedName(
    "airflow.sdk.api.client:Client._request_with_retry.retry.wait.min", _READ_AT_IMPORT, _SUPERVISOR, since="3.4"
)
API_WAIT_MAX_SINCE_3_4: Final = ReplacedName(
    "airflow.sdk.api.client:Client._request_with_retry.retry.wait.max", _READ_AT_IMPORT, _SUPERVISOR, since="3.4"
)
HIDE_SENSITIVE_FIELDS: Final = ReplacedName(
    "airflow.settings:HIDE_SENSITIVE_VAR_CONN_FIELDS",
    _READ_AT_IMPORT,
    _SUPERVISOR,
    until="3.1",
)
MASK_ADAPTER: Final = ReplacedName(
    "airflow.sdk.execution_time.secrets_masker:SecretsMasker._mask_adapter",
    "Airflow imports it at the first secret, with the settings of an earlier workload.",
    _SUPERVISOR,
    until="3.0",
    of_instances=True,
)

#: All rows of this module.
ROWS: Final = tuple(row for row in list(globals().values()) if isinstance(row, ReplacedName))

#: The table is between these marks in docs/upstream-notes.md.
BEGIN, END = "<!-- replaced names: made by `make docs` -->\n", "<!-- end of replaced names -->"


def table() -> str:
    """Return all replaced names of Airflow and of the SDK as a table in Markdown."""
    lines = ["| replaced name | versions | why | where |", "|---|---|---|---|"]
    lines += _lines(ROWS, "Airflow")
    lines += _lines(replaced_in_sdk.ROWS, "modal")
    return "\n".join(lines) + "\n"


def _lines(rows: Iterable[ReplacedName], project: str) -> list[str]:
    lines = []
    for row in rows:
        name = row.name.replace(":", ".")
        lines.append(f"| `{name}` | {_versions(row, project)} | {row.why} | `{row.by}` |")
    return lines


def _versions(row: ReplacedName, project: str) -> str:
    if row.since and row.since == row.until:
        return f"{project} {row.since}"
    since = f"since {project} {row.since}" if row.since else ""
    until = f"until {project} {row.until}" if row.until else ""
    return " ".join(part for part in (since, until) if part) or "all"


def main(page: Path) -> None:
    """Write the table into a page, between the marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
