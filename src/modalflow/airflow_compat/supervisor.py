"""Airflow's supervisor, as the worker runs it in every supported version: start, masking, logs, callbacks.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, cast

from modalflow.airflow_compat import replaced as rows
from modalflow.airflow_compat.configuration import execution_api_server_url, own_conf
from modalflow.airflow_compat.versions import (
    AIRFLOW_V_3_1_PLUS,
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_VERSION,
)
from modalflow.support.replaced import assign, replace, replaced

_TASK_MODULES: Final = (
    "airflow.executors.workloads",
    "airflow.executors.base_executor",
    "airflow.dag_processing.bundles.manager",
    "airflow.dag_processing.dagbag" if AIRFLOW_V_3_2_PLUS else "airflow.models.dagbag",
    "airflow.sdk.api.client",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.log",
)
_TASK_MODULES_SINCE_3_3: Final = (
    "airflow.sdk.execution_time.callback_supervisor",
    "airflow.sdk.execution_time.connection_test_supervisor",
)


#: The Execution API's client: attempts, and the shortest and the longest wait between two.
_ROWS_OF_RETRIES: Final = next(
    of_version
    for of_version in (
        (rows.API_RETRIES_SINCE_3_4, rows.API_WAIT_MIN_SINCE_3_4, rows.API_WAIT_MAX_SINCE_3_4),
        (rows.API_RETRIES, rows.API_WAIT_MIN, rows.API_WAIT_MAX),
        (rows.API_RETRIES, rows.API_WAIT_MIN_OF_3_0, rows.API_WAIT_MAX_OF_3_0),
    )
    if all(row.applies_to(AIRFLOW_VERSION) for row in of_version)
)


class CallbackFailedError(RuntimeError):
    """A callback failed; the message is its own."""


def modules_of_a_supervised_task() -> Sequence[str]:
    """Return the imports of a supervised task: ``sys.modules`` before and after tasks of each kind."""
    return (*_TASK_MODULES, *_TASK_MODULES_SINCE_3_3) if AIRFLOW_V_3_3_PLUS else _TASK_MODULES


@cache
def workload_adapter() -> Any:
    """Return the validator of workloads of every kind."""
    from airflow.executors import workloads
    from pydantic import TypeAdapter

    return TypeAdapter(workloads.All)


def writes_own_log(workload: Any) -> bool:
    """Return whether the supervisor opens the workload's log; otherwise the log is this process's output."""
    return hasattr(workload, "log_path") and (AIRFLOW_V_3_3_PLUS or hasattr(workload, "ti"))


def already_runs(error: Exception) -> bool:
    """Return whether a task was not started because it already runs; before 3.2, this is an ordinary refusal."""
    return type(error).__name__ == "TaskAlreadyRunningError"


def log_to(output: BinaryIO) -> None:
    """Send the log of this process to a stream, as JSON lines."""
    from airflow.sdk.log import configure_logging

    configure: Any = configure_logging
    if AIRFLOW_V_3_1_PLUS:
        configure(output=output, json_output=True)
    else:
        configure(output=output, enable_pretty_log=False)


def configure_masking() -> None:
    """Mask secrets according to the present settings: Airflow reads them only once in each process, at import.

    Raises the errors of the import of ``[logging] secret_mask_adapter``.
    """
    from airflow import settings

    if rows.HIDE_SENSITIVE_FIELDS.applies_to(AIRFLOW_VERSION):
        replace(rows.HIDE_SENSITIVE_FIELDS, own_conf().getboolean("core", "hide_sensitive_var_conn_fields"))
    if AIRFLOW_V_3_1_PLUS:
        cast(Any, settings)._configure_secrets_masker()
        return
    masker: Any = import_module("airflow.sdk.execution_time.secrets_masker")
    masker.get_sensitive_variables_fields.cache_clear()
    masker.get_min_secret_length.cache_clear()
    # Imported now rather than at the first secret.
    adapter = own_conf().getimport("logging", "secret_mask_adapter", fallback=None)
    assign(rows.MASK_ADAPTER, masker._secrets_masker(), adapter)


def configure_api_client() -> None:
    """Make the Execution API's client wait and retry according to the present settings: Airflow reads them at import.

    Raises AirflowConfigException for a value other than a number.
    """
    conf = own_conf()
    retries, wait_min, wait_max = _ROWS_OF_RETRIES
    replace(retries, conf.getint("workers", "execution_api_retries"))
    replace(wait_min, conf.getfloat("workers", "execution_api_retry_wait_min"))
    replace(wait_max, conf.getfloat("workers", "execution_api_retry_wait_max"))
    timeout = conf.getfloat("workers", "execution_api_timeout", fallback=None)
    if rows.API_TIMEOUT.exists():
        replace(rows.API_TIMEOUT, timeout)
    elif timeout is not None:
        _set_timeout_of_clients(timeout)


def _set_timeout_of_clients(timeout: float) -> None:
    """Give the clients of Airflow before 3.1.1 a timeout: they have httpx's own, 5 s, and no setting for it."""
    original = rows.API_CLIENT_INIT.original()

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("timeout", timeout)
        original(self, *args, **kwargs)

    replace(rows.API_CLIENT_INIT, __init__)


def redacted(text: str) -> str:
    """Return a text with ``***`` for the secrets known to this process."""
    name = "airflow.sdk.log" if AIRFLOW_V_3_1_PLUS else "airflow.sdk.execution_time.secrets_masker"
    masker: Any = import_module(name)
    return str(masker.redact(text))


@contextlib.contextmanager
def recorded_dag_bags() -> Iterator[list[Any]]:
    """Yield the DagBags made within the context, including a failed one."""
    row = rows.DAG_BAG if AIRFLOW_V_3_2_PLUS else rows.DAG_BAG_BEFORE_3_2
    made: list[Any] = []
    original = row.original()

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        original(self, *args, **kwargs)

    with replaced(row, __init__):
        yield made


def end_at_segfaults() -> None:
    """Make a segmentation fault end a task.

    Airflow handles the signal during the import of the DAG file, and keeps the handler. Python's handlers return to the
    failed instruction, so a later fault repeats forever.
    """
    importers = (rows.LOAD_MODULES_SINCE_3_4, rows.LOAD_MODULES, rows.LOAD_MODULES_BEFORE_3_2)
    row = next((row for row in importers if row.exists()), None)
    if row is None:
        return
    original = row.original()

    def load_modules(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            with contextlib.suppress(ValueError):  # In a thread, no handler was set either.
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)

    replace(row, load_modules)


def describe_failed_callbacks(describe: Callable[[BaseException], str]) -> None:
    """Make a callback report its failure, even if Airflow cannot describe it.

    Airflow formats and logs the exception, and this can raise in turn. Then only an exit code remains.
    """
    row = rows.EXECUTE_CALLBACK
    if not row.exists():
        return
    original = row.original()

    def execute_callback(*args: Any, **kwargs: Any) -> tuple[bool, str | None]:
        try:
            outcome: tuple[bool, str | None] = original(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  The border of a user's code: every exception is its outcome.
            return False, f"Callback execution failed: {describe(error.__context__ or error)}"
        return outcome

    replace(row, execute_callback)


def clean_connection_test_results(clean: Callable[[str], str]) -> None:
    """Clean a connection test's report to Airflow's API: a database may refuse the original text."""
    row = rows.CONNECTION_TEST_RESULT
    if not row.exists():
        return
    original = row.original()

    def update_state(self: Any, id: Any, state: Any, result_message: Any = None) -> None:
        original(self, id, state, None if result_message is None else clean(str(result_message)))

    replace(row, update_state)


def run_supervisor(workload: Any) -> int:
    """Run a workload under Airflow's own supervisor. Return its exit code.

    Raises CallbackFailedError and the supervisor's errors. The older versions' own ``execute_workload`` is not used,
    because it prints the workload with its token.
    """
    from airflow.executors import base_executor

    if AIRFLOW_V_3_3_PLUS:
        return int(base_executor.BaseExecutor.run_workload(workload))
    if not hasattr(workload, "ti"):
        return _run_callback_of_3_2(workload)
    from airflow.sdk.execution_time import supervisor

    _forward_signals()
    more = {"sentry_integration": workload.sentry_integration} if AIRFLOW_V_3_2_PLUS else {}
    run: Any = cast(Any, supervisor).supervise
    return int(
        run(
            ti=workload.ti,
            dag_rel_path=workload.dag_rel_path,
            bundle_info=workload.bundle_info,
            token=workload.token,
            server=execution_api_server_url(own_conf()),
            log_path=workload.log_path,
            **more,
        )
    )


def _run_callback_of_3_2(workload: Any) -> int:
    """Run a callback in this process as 3.2's executors do, but with the DAG bundle available as from 3.3 on."""
    import structlog
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.executors.workloads import callback

    info = workload.bundle_info
    bundles: Any = DagBundlesManager
    bundle = bundles().get_bundle(name=info.name, version=info.version)
    bundle.initialize()
    sys.path.append(str(bundle.path))
    _import_dag_file(str(workload.callback.data.get("path", "")), Path(bundle.path) / workload.dag_rel_path)
    log = structlog.get_logger(logger_name="callback_runner")
    succeeded, error = cast(Any, callback).execute_callback_workload(workload.callback, log)
    if not succeeded:
        raise CallbackFailedError(error or "Callback execution failed")
    return 0


def _import_dag_file(callback_path: str, dag_file: Path) -> None:
    """Import a DAG file under the name in a callback's path. No import would find this name."""
    from importlib.util import module_from_spec, spec_from_file_location

    name = callback_path.rpartition(".")[0]
    spec = spec_from_file_location(name, dag_file) if name.startswith("unusual_prefix_") else None
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def _forward_signals() -> None:
    """Forward SIGTERM and SIGINT from the supervisor to the task, so ``on_kill()`` runs; 3.3 does this itself."""
    original = rows.SUPERVISOR_WAIT.original()

    def wait(self: Any) -> int:
        def forward(number: int, frame: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

        before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return int(original(self))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    replace(rows.SUPERVISOR_WAIT, wait)


# --- a process forked before its task ---

#: The local variables with the child's ends of the channels, in the supervisor's function that forks.
_CHANNELS: Final = ("child_requests", "child_stdout", "child_stderr", "child_logs")

#: The parameters of the function that the child runs.
_PARAMETERS: Final = ("requests", "child_stdout", "child_stderr", "log_fd", "target")


def can_prepare_tasks() -> bool:
    """Return whether the installed Airflow starts a task as this module knows it."""
    if not rows.SUPERVISOR_OS.applies_to(AIRFLOW_VERSION) or not rows.SUPERVISOR_OS.exists():
        return False
    main = getattr(import_module("airflow.sdk.execution_time.supervisor"), "_fork_main", None)
    return main is not None and tuple(inspect.signature(main).parameters) == _PARAMETERS


def start_task_with(begin: Callable[[Sequence[int]], int | None], otherwise: Callable[[], None]) -> None:
    """Let the supervisor start its task with ``begin`` instead of a fork.

    ``begin`` gets the channels' files, and returns the PID of the task's process, or None if it has ended. If the
    supervisor forks for anything else, ``otherwise`` is called first, and it forks.
    """
    module = import_module("airflow.sdk.execution_time.supervisor")
    is_used = False

    def fork() -> int:
        nonlocal is_used
        if is_used:
            return os.fork()
        is_used = True
        values = sys._getframe(1).f_locals
        if not _starts_task(values, module):
            otherwise()
            return os.fork()
        pid = begin([values[name].fileno() for name in _CHANNELS])
        return os.fork() if pid is None else pid

    replace(rows.SUPERVISOR_OS, _Os(fork))


def run_task(files: Sequence[int]) -> NoReturn:
    """Run a task in this process, which was forked for it, with these channels."""
    from airflow.sdk._shared.secrets_masker import reset_secrets_masker

    module = import_module("airflow.sdk.execution_time.supervisor")
    module._make_process_nondumpable()
    reset_secrets_masker()
    os.setpgid(0, 0)
    requests, stdout, stderr = (socket.socket(fileno=file) for file in files[:3])
    module._fork_main(requests, stdout, stderr, files[3], module._subprocess_main)
    raise AssertionError("unreachable")


class _Os:
    """The module ``os`` with another ``fork``."""

    def __init__(self, fork: Callable[[], int]) -> None:
        self.fork = fork

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _starts_task(values: Mapping[str, Any], module: Any) -> bool:
    # From Python 3.13 on, the local variables of a frame are no dict, and their keys are a list.
    return (
        set(values) >= {*_CHANNELS, "target", "new_process_group", "use_exec"}
        and values["target"] is module._subprocess_main
        and values["new_process_group"]
        and not values["use_exec"]
    )
