"""The execution of one of Airflow's workloads under Airflow's own supervisor, in a process forked for it alone.

``supervise`` is called in each fork of a zygote, which has warmed up (``warmup``). Must not let a token into a log or
an outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from modalflow.airflow_compat import replaced as rows
from modalflow.airflow_compat import supervisor
from modalflow.airflow_compat.configuration import execution_api_server_url, own_conf
from modalflow.airflow_compat.dag_bundles import configured_bundles
from modalflow.config.urls import without_user
from modalflow.names import API_CLIENT_OPTIONS, CONSOLE_VARIABLE, RELAYED_URL_VARIABLE
from modalflow.protocol.messages import State
from modalflow.support import linux
from modalflow.support.described import describe
from modalflow.support.replaced import replace
from modalflow.support.text import clean, from_json
from modalflow.worker.environment import has_remote_logging
from modalflow.worker.logs.supervised_log import log_in_parts
from modalflow.worker.run.api_errors import refusal_of, unreached
from modalflow.worker.run.course import Course
from modalflow.worker.run.missing_dag import DagSearch, why_missing, why_no_bundle
from modalflow.worker.run.prepared_task import PreparedTask
from modalflow.worker.run.stop_notice import StopNotice
from modalflow.worker.run.terminal.console import attach_console
from modalflow.worker.zygote import isolation
from modalflow.worker.zygote.imports import refused_setting
from modalflow.worker.zygote.protocol import ForkRequest, Outcome

if TYPE_CHECKING:
    from airflow.sdk.api.client import TaskInstanceOperations
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess, WatchedSubprocess
    from pydantic import ValidationError

#: Seconds to wait for the end of a task process that has closed all its channels, before the supervisor sends
#: heartbeats again.
_EXIT_WAIT = 0.5

#: The last parts of a log that are searched for a callback's error. The error is among the last lines, but a line that
#: is longer than a part has a part for itself.
_LAST_PARTS = 3


#: Characters that Airflow stores of the result of a connection test (``connection_test_request.result_message``).
_CONNECTION_TEST = 2_000


def supervise(request: ForkRequest, prepared: PreparedTask | None = None) -> Outcome:
    """Run the workload to its end and return its outcome, with a reason that is masked and safe to store.

    Every exception except an interrupt becomes an outcome. ``prepared`` is a process for the task, forked before.
    """
    if prepared is not None:
        supervisor.start_task_with(prepared.begin, otherwise=prepared.dismiss)
    try:
        supervisor.configure_masking()
    except Exception as error:  # noqa: BLE001  Running it unmasked would put secrets into its log.
        return _presentable(Outcome(State.FAILED, reason=_without_masking(error)))
    try:
        supervisor.configure_api_client()
    except Exception as error:  # noqa: BLE001  A setting of the user's.
        return _presentable(Outcome(State.FAILED, reason=_without_api_client(error)))
    return _presentable(_with_log(request))


def prepare_task(close: Sequence[socket.socket]) -> PreparedTask | None:
    """Fork the process of the next task; None if this version of Airflow only takes one of its own.

    It will have what a fork of ``supervise`` has. ``close`` are sockets that only this process may have.
    """
    return PreparedTask.fork(_run_task, close) if supervisor.can_prepare_tasks() else None


def _run_task(variables: Mapping[str, str], files: Sequence[int]) -> NoReturn:
    isolation.replace_environment(variables)
    supervisor.configure_masking()
    _change_task_runner()
    supervisor.run_task(files)


def _change_task_runner() -> None:
    """Change what a task's process runs."""
    supervisor.end_at_segfaults()
    _log_why_dag_is_missing()
    if wanted := os.environ.get(CONSOLE_VARIABLE):
        attach_console(wanted)


def _presentable(outcome: Outcome) -> Outcome:
    if not outcome.reason:
        return outcome
    return dataclasses.replace(outcome, reason=clean(supervisor.redacted(outcome.reason)))


def _without_masking(error: Exception) -> str:
    return (
        "The worker cannot mask secrets as [core] sensitive_var_conn_names, [core] hide_sensitive_var_conn_fields, "
        "[logging] secret_mask_adapter and [logging] min_length_masked_secret require, so nothing was run "
        f"({describe(error)}). If the adapter's module cannot be imported, add it to the "
        "worker's image and deploy again: `modalflow deploy`."
    )


def _without_api_client(error: Exception) -> str:
    options = ", ".join(f"[{section}] {option}" for section, option in API_CLIENT_OPTIONS)
    return (
        f"The worker cannot read one of {options} ({describe(error)}). Set a number on the Airflow host, in "
        "[modal_executor] worker_env or in the profile's env, wherever you set it."
    )


def _with_log(request: ForkRequest) -> Outcome:
    from pydantic import ValidationError

    try:
        workload: Any = supervisor.workload_adapter().validate_json(request.workload or "")
    except ValidationError as error:
        return Outcome(State.FAILED, reason=_unreadable(error))
    course = Course()
    with contextlib.ExitStack() as stack:
        if supervisor.writes_own_log(workload):
            workload = stack.enter_context(log_in_parts(request, workload, course.log_opened))
        else:
            _redirect_output(request.log_file)
        return dataclasses.replace(_under_supervisor(request, workload, course), moments=course.moments)


def _under_supervisor(request: ForkRequest, workload: Any, course: Course) -> Outcome:
    if has_remote_logging(os.environ):
        supervisor.log_to(sys.stdout.buffer)
    _record_final_state(course, notice := StopNotice())
    notice.listen()
    _record_start(course)
    _notice_exit_promptly()
    _skip_first_heartbeat()
    _end_task_with_supervisor()
    supervisor.describe_failed_callbacks(lambda error: clean(describe(error)))
    supervisor.clean_connection_test_results(lambda text: clean(supervisor.redacted(text), _CONNECTION_TEST))
    _change_task_runner()
    try:
        return_code = supervisor.run_supervisor(workload)
    except supervisor.CallbackFailedError as error:
        return Outcome(State.FAILED, reason=str(error))
    except Exception as error:  # noqa: BLE001  The border of the workload: every exception is its outcome.
        if supervisor.already_runs(error):
            return Outcome(
                State.SUCCESS,
                final_state="running",
                reason="Airflow reports that this task already runs somewhere else; it was not run here.",
            )
        # Over the relay, its own server in the container says nothing to a user.
        url = without_user(os.environ.get(RELAYED_URL_VARIABLE) or execution_api_server_url(own_conf()))
        started = bool(course.started_at or course.final_state)
        refusal = refusal_of(error, getattr(workload, "token", ""), url, started=started)
        if refusal is not None:
            return dataclasses.replace(refusal, final_state=refusal.final_state or course.final_state)
        if hasattr(workload, "ti") and not course.started_at and (outcome := unreached(error, url)) is not None:
            return outcome
        _log_exception()
        if type(error).__name__ == "AirflowConfigException" and not course.started_at:
            return Outcome(State.FAILED, reason=refused_setting(error))
        reason = _callback_error(request.log_file) or f"Airflow's supervisor failed with {describe(error)}"
        return Outcome(State.FAILED, final_state=course.final_state, reason=reason)
    return Outcome(State.SUCCESS, return_code, course.final_state)


def _callback_error(log_file: str) -> str | None:
    """Return the error that the process of a failed callback logged; its supervisor has only an exit code."""
    first = Path(log_file)
    parts = sorted(first.parent.glob(f"{glob.escape(first.name)}*"), reverse=True)
    return next((error for part in parts[:_LAST_PARTS] if (error := _error_in(part)) is not None), None)


def _error_in(part: Path) -> str | None:
    # Not splitlines(): it also splits at characters that a line of JSON may hold.
    for line in reversed(part.read_text(errors="backslashreplace").split("\n")):
        if "callback_runner" not in line:
            continue
        with contextlib.suppress(ValueError):
            entry = from_json(line)
            if isinstance(entry, dict) and entry.get("logger") == "callback_runner" and "error" in entry:
                return str(entry["error"])
    return None


def _unreadable(error: ValidationError) -> str:
    problems = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'workload'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_context=False, include_url=False)
    )
    from airflow import __version__

    return (
        f"The worker's Airflow {__version__} cannot read this workload ({problems}). "
        "Run the worker with the scheduler's version of Airflow: `modalflow deploy`."
    )


def _log_exception() -> None:
    import structlog

    structlog.get_logger(logger_name="modalflow.worker").exception("The workload could not be run")


def _redirect_output(log_file: str) -> None:
    """Send this process's own output to the log: a workload without a log path has no other output."""
    file = os.open(log_file, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _record_final_state(course: Course, notice: StopNotice) -> None:
    """Record the state that the supervisor reports to Airflow's API, unless the executor will report it.

    The supervisor does not return it to its caller.
    """
    original = rows.FINAL_STATE.original()

    def update_task_state_if_needed(self: ActivitySubprocess) -> None:
        state = self.final_state
        course.ended(state)
        if not notice.withholds(state):
            original(self)
            course.reported()

    replace(rows.FINAL_STATE, update_task_state_if_needed)


def _record_start(course: Course) -> None:
    """Record that Airflow's API has let the task start: if something fails before, nothing of the task has run."""
    original = rows.TASK_START.original()

    def start(self: TaskInstanceOperations, id: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, id, *args, **kwargs)
        course.started()
        return answer

    replace(rows.TASK_START, start)


def _notice_exit_promptly() -> None:
    """Make the supervisor notice a task's end at once, since waiting is billed on Modal.

    If a task's channels are closed before its process can be reaped, the supervisor waits for
    ``[workers] min_heartbeat_interval``, 5 s by default. If a process that the task left behind keeps the channels
    open, it waits for ``[workers] socket_cleanup_timeout``, 60 s.
    """
    original = rows.SERVICE_SUBPROCESS.original()

    def _service_subprocess(self: WatchedSubprocess, max_wait_time: float, *args: Any, **kwargs: Any) -> Any:
        if not self.selector.get_map():
            if linux.ends_within(self.pid, min(max_wait_time, _EXIT_WAIT)):
                return self._check_subprocess_exit(*args, **kwargs)
            max_wait_time = 0
        elif self._exit_code is not None:
            # The channels keep what these processes have written.
            linux.kill_children_but(())
        return original(self, max_wait_time, *args, **kwargs)

    replace(rows.SERVICE_SUBPROCESS, _service_subprocess)


def _skip_first_heartbeat() -> None:
    """Send the first heartbeat one interval after the start: for Airflow's API the start is a heartbeat too."""
    original = rows.CHILD_STARTED.original()

    def _on_child_started(self: ActivitySubprocess, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._last_heartbeat_attempt = time.monotonic()

    replace(rows.CHILD_STARTED, _on_child_started)


def _log_why_dag_is_missing() -> None:
    """Log the reason why Airflow did not find the task's DAG or bundle, after Airflow's own line about it."""
    original = rows.PARSE.original()

    def parse(what: Any, log: Any) -> Any:
        with supervisor.recorded_dag_bags() as bags:
            try:
                return original(what, log)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                try:
                    if reason := _why_missing(what, bags, error):
                        log.error(reason)
                except Exception:  # The explanation must not hide the error that it explains.
                    log.exception("The reason why the DAG is missing could not be determined")
                raise

    replace(rows.PARSE, parse)


def _why_missing(what: Any, bags: Sequence[Any], error: BaseException) -> str:
    """Return why ``parse`` did not return the task; empty if Airflow has logged the reason itself."""
    info = what.bundle_info
    if not bags:
        # Airflow has not come to the files yet.
        return why_no_bundle(info.name, info.version, configured_bundles(), describe(error))
    if not isinstance(error, SystemExit) and type(error).__name__ != "AirflowRescheduleException":
        return ""
    file, dag_file = Path(bags[-1].dag_folder), Path(what.dag_rel_path)
    return why_missing(
        DagSearch(
            dag_id=what.ti.dag_id,
            task_id=what.ti.task_id,
            bundle=info.name,
            version=info.version,
            folder=Path(str(file).removesuffix(str(dag_file))),
            file=file,
            dags={dag_id: list(dag.task_dict) for dag_id, dag in bags[-1].dags.items()},
            errors=bags[-1].import_errors,
        )
    )


def _end_task_with_supervisor() -> None:
    """Make the task process end when the supervisor is killed: nothing else would end it."""
    parent = os.getpid()

    def in_child() -> None:
        # Only in the task process: its children may be forked from a thread, and the thread's end would kill them.
        if os.getppid() == parent:
            linux.die_with(parent)

    os.register_at_fork(after_in_child=in_child)
