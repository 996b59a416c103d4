"""Checks of Airflow's side: options, executor, log reader, the containers' address, timeouts.

Reads only this machine's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modalflow import control_plane
from modalflow.config.settings import OPTIONS, SECTION, Settings
from modalflow.config.source import ConfigSource
from modalflow.config.urls import without_user
from modalflow.errors import ConfigError
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, warn

EXECUTOR = "modalflow.executor.modal_executor.ModalExecutor"
LOGGING = "modalflow.airflow_logging.LOGGING_CONFIG"

#: Airflow's own default of [scheduler] task_queued_timeout, in seconds.
_USUAL_QUEUED_TIMEOUT = 600.0

WITHOUT_AIRFLOW = "Airflow is not installed here; run this on the scheduler's machine"


def settings(source: ConfigSource, mistakes: list[ConfigError]) -> Iterator[Finding]:
    """Check the options of ``[modal_executor]``."""
    for mistake in mistakes:
        # Variables may be secrets.
        hidden = f"{mistake.where} is malformed; expected {mistake.expected}"
        detail = hidden if mistake.where.endswith("worker_env") else str(mistake)
        yield fail("options", detail, f"Fix {mistake.where} in airflow.cfg or its environment variable.")
    if not mistakes:
        given = {option.name: source.get(SECTION, option.name, fallback="") for option in OPTIONS}
        changed = [option.name for option in OPTIONS if (given[option.name] or option.default) != option.default]
        yield ok("options", f"set: {', '.join(changed)}" if changed else "all at their defaults")


def airflow(conf: Any | None) -> Iterator[Finding]:
    """Check the parts of Airflow's configuration with silent effects on tasks."""
    if conf is None:
        yield skip("executor", WITHOUT_AIRFLOW)
        return
    yield _executor(conf)
    yield _task_logs(conf)
    yield _queued_timeout(conf)


def _executor(conf: Any) -> Finding:
    configured = conf.get("core", "executor", fallback="") or ""
    if "ModalExecutor" in configured:
        return ok("executor", configured)
    return warn(
        "executor",
        f"[core] executor is {configured}, so this Airflow runs no tasks on Modal",
        f"Set [core] executor = {EXECUTOR}, or add it to the list.",
    )


def _task_logs(conf: Any) -> Finding:
    from modalflow import airflow_logging
    from modalflow.airflow_compat.task_logs import remote_task_log

    advice = f"Set [logging] logging_config_class = {LOGGING} for every Airflow component."
    if airflow_logging.is_in_use():
        return ok("task logs", "Airflow reads them from the logs Volume")
    if key := conf.get("logging", "google_key_path", fallback=""):
        return warn(
            "task logs",
            f"[logging] google_key_path is {key}, a file of this machine: containers do not have it",
            "Put the key into the connection of remote_log_conn_id, or into the worker's image.",
        )
    if (handler := remote_task_log()) is not None:
        what = f"{type(handler).__name__}, uploaded by the worker after a task; during it, from the logs Volume"
        return ok("task logs", f"Airflow reads them with {what}")
    configured = conf.get("logging", "logging_config_class", fallback="") or "not set"
    return fail(
        "task logs",
        f"[logging] logging_config_class is {configured}: Airflow will not show the logs of ended tasks",
        advice,
    )


def queued_timeout(conf: Any | None) -> float:
    """Return the seconds until Airflow revokes a queued task."""
    if conf is None:
        return _USUAL_QUEUED_TIMEOUT
    return float(conf.get("scheduler", "task_queued_timeout", fallback=_USUAL_QUEUED_TIMEOUT))


def _queued_timeout(conf: Any) -> Finding:
    seconds = queued_timeout(conf)
    what = f"[scheduler] task_queued_timeout = {seconds:g} s: after this wait for a container, Airflow revokes a task"
    if seconds < _USUAL_QUEUED_TIMEOUT:
        return warn(
            "queued timeout",
            f"{what}; a cold start with a new image, or with a GPU, can take longer",
            "Set it to the longest acceptable wait for a GPU, e.g. 3600.",
        )
    return ok("queued timeout", f"{what} and queues it again. If you wait longer for GPUs, raise it")


def execution_api(read: Settings, conf: Any | None) -> tuple[Finding, Mapping[str, str]]:
    """Return the finding on the containers' address, and the executor's variables for containers."""
    if conf is None:
        env = dict(read.worker_env)
        if read.uses_relay or not read.execution_api_url:
            return skip("execution API address", WITHOUT_AIRFLOW), env
        env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = read.execution_api_url
        return ok("execution API address", without_user(read.execution_api_url)), env
    from modalflow.executor.worker_env import workload_env

    try:
        variables = workload_env(read, conf)
    except ConfigError as error:
        advice = (
            "Set [modal_executor] execution_api = auto, and no execution_api_url, to use the relay; or set "
            "execution_api_url to a URL within reach of Modal's containers."
        )
        return fail("execution API address", str(error), advice), {}
    url = variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    if read.uses_relay:
        return ok("execution API address", _for_relays(url)), variables
    where = " (this machine, like the containers)" if control_plane.is_loopback(url) else ""
    return ok("execution API address", without_user(url) + where), variables


def _for_relays(url: str) -> str:
    shown = f"{without_user(url)}, for relays; containers use the relay"
    if control_plane.is_loopback(url):
        return shown
    # Before the relay, containers used this URL. Those who upgrade may have opened a firewall for it.
    return f"{shown}, and need no access to it. To send requests directly, set [modal_executor] execution_api_url"
