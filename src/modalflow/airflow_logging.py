"""Airflow's logging configuration with task logs on the logs Volume.

Used as ``[logging] logging_config_class = modalflow.airflow_logging.LOGGING_CONFIG``, with ``remote_logging`` left
False. Airflow reads the module-level names below, and imports this module during its own import. So nothing here may
import Modal or read a setting before the first read of a log.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG

from modalflow.support.bounded import within
from modalflow.support.described import describe
from modalflow.support.forks import PerProcess

if TYPE_CHECKING:
    from modalflow.logs.log_volume import LogVolume

log = logging.getLogger(__name__)

#: Time limit of an upload in seconds, including the connection to Modal. Its caller holds a slot of an executor, or is
#: the only loop of a triggerer. A triggerer counts as dead after 30 s ([triggerer] triggerer_health_check_threshold).
UPLOAD_SECONDS: Final = 20.0

#: Time limit of an upload while Modal does not answer, and the time for this limit. So a Modal outage costs each slot
#: one long wait a minute, not one for each task.
IMPATIENT_SECONDS: Final = 2.0
IMPATIENT_FOR: Final = 60.0

#: Time limit of a log's reader in seconds, including the connection to Modal. The read itself has its own limit
#: (log_volume.READ_TIMEOUT), and then returns its partial result.
READ_SECONDS: Final = 30.0

_T = TypeVar("_T")


def _with_our_handler(config: dict[str, Any]) -> dict[str, Any]:
    """Return Airflow's logging configuration, with a handler of task logs for long names."""
    handlers = config["handlers"]
    task = {**handlers["task"], "class": "modalflow.task_log_handler.TaskLogHandler"}
    return {**config, "handlers": {**handlers, "task": task}}


LOGGING_CONFIG: dict[str, Any] = _with_our_handler(DEFAULT_LOGGING_CONFIG)


class ModalVolumeLogIO:
    """Airflow's RemoteLogIO on the logs Volume.

    Containers write their logs directly. ``upload`` serves the processes of the Airflow host: triggerers, and tasks of
    other executors. They may be forks of a process with Modal; see ``support.forks``.
    """

    def __init__(self) -> None:
        self._opened: PerProcess[str | None, LogVolume] = PerProcess()
        """By team."""
        self._impatient_until = 0.0

    @property
    def processors(self) -> tuple[Any, ...]:
        """No line needs anything done to it while it is written."""
        return ()

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """Copy a log file, given relative to ``[logging] base_log_folder``, to the Volume, within UPLOAD_SECONDS.

        Raises nothing: in Airflow 3.0 and 3.1, an error would end a triggerer, or the supervisor of a successful task.
        A failure is an error in this process's log and in the file.
        """
        from airflow.configuration import conf

        base = Path(conf.get("logging", "base_log_folder"))
        local = base / path
        if not local.is_file():
            return
        began = time.monotonic()
        seconds = IMPATIENT_SECONDS if began < self._impatient_until else UPLOAD_SECONDS
        try:
            relative, content = str(local.relative_to(base)), local.read_bytes()
            team = _teams_of(ti)[0]
            host = socket.gethostname()
            within(
                seconds,
                lambda: self._on_volume(team, lambda volume: volume.add_local_file(relative, content, host)),
            )
        except Exception as error:  # noqa: BLE001  See the docstring.
            if time.monotonic() - began >= IMPATIENT_SECONDS:
                self._impatient_until = time.monotonic() + IMPATIENT_FOR
            _report_failed_upload(local, error, seconds)

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str] | None]:
        """Return (sources, parts of the log); see LogVolume.read."""
        from modalflow.errors import ModalflowError
        from modalflow.support.text import one_line

        nowhere: list[str] = []
        found: list[str] = []
        parts: list[str] = []
        for team in _teams_of(ti):
            try:
                sources, texts = self._read_of_team(team, relative_path, ti)
            except ModalflowError as error:
                sources, texts = [one_line(error)], []
            except TimeoutError:
                sources, texts = [f"Modal did not answer within {READ_SECONDS:g} s"], []
            parts += texts
            (found if texts else nowhere).extend(sources)
        return found or nowhere, parts or None

    def _read_of_team(self, team: str | None, relative_path: str, ti: Any) -> tuple[list[str], list[str]]:
        def work() -> tuple[list[str], list[str]]:
            return self._on_volume(team, lambda volume: _read(volume, relative_path, ti))

        return within(READ_SECONDS, work)

    def _on_volume(self, team: str | None, what: Callable[[LogVolume], _T]) -> _T:
        """Call ``what`` with the logs Volume. If Modal rejects the credentials, reload them and retry once: the API
        server may outlive a token."""
        from modal.exception import AuthError

        from modalflow.control_plane import forget
        from modalflow.errors import CredentialsError

        volume = self._volume(team)
        try:
            return what(volume)
        except (AuthError, CredentialsError):
            forget(volume.control_plane)
            self._opened.pop(team, None)
            return what(self._volume(team))

    def _volume(self, team: str | None) -> LogVolume:
        volume = self._opened.get(team)
        if volume is None:
            volume = self._opened[team] = _open(team)
        return volume


def _read(volume: LogVolume, relative_path: str, ti: Any) -> tuple[list[str], list[str]]:
    """As LogVolume.read, with where the log of another executor's task is instead."""
    sources, texts = volume.read(relative_path)
    if sources == [volume.no_log(relative_path)]:
        sources = [_where_instead(ti, relative_path, volume.name) or sources[0]]
    return sources, texts


def _where_instead(ti: Any, relative_path: str, volume: str) -> str | None:
    """Return the place of a task instance's log under another executor; None under ModalExecutor."""
    from modalflow.airflow_compat.task_logs import is_finished, other_executor_of

    executor = other_executor_of(ti)
    if executor is None:
        return None
    host = getattr(ti, "hostname", None)
    if not host:
        return f"{executor} runs this task, not ModalExecutor, and has not started it"
    if not is_finished(ti):
        return f"{executor} runs this task on {host}, not ModalExecutor: its log is there until the task has ended"
    return (
        f"{executor} ran this task, not ModalExecutor, and its log is not on Volume {volume}: it is in {relative_path} "
        f"below [logging] base_log_folder on {host}, and its last lines have the reason"
    )


def _report_failed_upload(local: Path, error: Exception, seconds: float) -> None:
    """Log in this process (for LocalExecutor, the scheduler's log) and in the file why the log stays on this host."""
    from modalflow.logs.log_volume import Line
    from modalflow.support.text import STORED, one_line

    reason = f"Modal did not answer within {seconds:g} s" if isinstance(error, TimeoutError) else describe(error)
    text = one_line(
        f"This log could not be copied to the logs Volume ({reason}). It is in {local} on {socket.gethostname()}.",
        STORED,
    )
    log.error("%s", text, exc_info=None if _is_expected(error) else error)
    try:
        with local.open("ab") as file:
            file.write(Line.now(str(local), text, "error").content)
    except OSError as unwritable:
        log.error("The previous message could not be added to %s: %s", local, unwritable)


def _is_expected(error: Exception) -> bool:
    """Return whether an error's text needs no traceback."""
    from modal.exception import Error

    from modalflow.errors import ModalflowError

    return isinstance(error, ModalflowError | Error | OSError)


def _teams_of(ti: Any) -> list[str | None]:
    """Return the teams with a possible log of a task instance: its DAG's team, if any, and the general one."""
    from modalflow.airflow_compat.task_logs import team_of_dag

    dag_id = getattr(ti, "dag_id", None)
    team = team_of_dag(dag_id) if dag_id else None
    return [team, None] if team else [None]


def _open(team: str | None) -> LogVolume:
    from modalflow.airflow_compat.configuration import conf_of_team, modal_hook
    from modalflow.config.settings import Settings
    from modalflow.control_plane import connect
    from modalflow.logs.log_volume import LogVolume

    settings = Settings.read(conf_of_team(team))
    control_plane = connect(conn_id=settings.conn_id, environment=settings.environment, hook=modal_hook)
    return LogVolume(control_plane, settings.names)


def is_in_use() -> bool:
    """Return whether Airflow reads task logs through this module."""
    from modalflow.airflow_compat.task_logs import remote_task_log

    return isinstance(remote_task_log(), ModalVolumeLogIO)


REMOTE_TASK_LOG = ModalVolumeLogIO()
DEFAULT_REMOTE_CONN_ID = "modal_default"
