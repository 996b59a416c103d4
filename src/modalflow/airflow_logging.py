"""Airflow's logging configuration with task logs on the logs Volume.

Used as ``[logging] logging_config_class = modalflow.airflow_logging.LOGGING_CONFIG``, with ``remote_logging`` left
False:
the module-level names below are what Airflow looks for. Imported while Airflow itself is being imported, so nothing
here may import Modal or read a setting before the first log is read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG

if TYPE_CHECKING:
    from modalflow.log_volume import LogVolume

_T = TypeVar("_T")

LOGGING_CONFIG: dict[str, Any] = DEFAULT_LOGGING_CONFIG


class ModalVolumeLogIO:
    """Airflow's RemoteLogIO on the logs Volume.

    What containers write is there already; ``upload`` serves the processes of the Airflow host (triggerers, tasks of
    other executors).
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[int, str | None], LogVolume] = {}
        """By process id, as a client inherited across a fork is not dependable, and by team."""

    @property
    def processors(self) -> tuple[Any, ...]:
        """No line needs anything done to it while it is written."""
        return ()

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """Copy a log file, given relative to ``[logging] base_log_folder``, to the Volume."""
        from airflow.configuration import conf

        base = Path(conf.get("logging", "base_log_folder"))
        local = base / path
        if local.is_file():
            relative, content = str(local.relative_to(base)), local.read_bytes()
            self._on_volume(
                _teams_of(ti)[0], lambda volume: volume.add_local_file(relative, content, socket.gethostname())
            )

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str] | None]:
        """Return (sources, parts of the log); see LogVolume.read."""
        from modalflow.errors import ModalflowError
        from modalflow.text import one_line

        nowhere: list[str] = []
        found: list[str] = []
        parts: list[str] = []
        for team in _teams_of(ti):
            try:
                sources, texts = self._on_volume(team, lambda volume: volume.read(relative_path))
            except ModalflowError as error:
                sources, texts = [one_line(error)], []
            parts += texts
            (found if texts else nowhere).extend(sources)
        return found or nowhere, parts or None

    def _on_volume(self, team: str | None, what: Callable[[LogVolume], _T]) -> _T:
        """Do something with a Volume; again with the credentials as they are then, where Modal refused those of
        before: an API server lives longer than a token."""
        from modal.exception import AuthError

        from modalflow.control_plane import forget
        from modalflow.errors import CredentialsError

        volume = self._volume(team)
        try:
            return what(volume)
        except (AuthError, CredentialsError):
            forget(volume.control_plane)
            self._opened.pop((os.getpid(), team), None)
            return what(self._volume(team))

    def _volume(self, team: str | None) -> LogVolume:
        key = (os.getpid(), team)
        if key not in self._opened:
            self._opened[key] = _open(team)
        return self._opened[key]


def _teams_of(ti: Any) -> list[str | None]:
    """Whose worker apps may have a task instance's log: that of its DAG's team, if that has one, and everybody's."""
    from modalflow.airflow_compat import team_of_dag

    dag_id = getattr(ti, "dag_id", None)
    team = team_of_dag(dag_id) if dag_id else None
    return [team, None] if team else [None]


def _open(team: str | None) -> LogVolume:
    from modalflow.airflow_compat import conf_of_team, modal_hook
    from modalflow.config import Settings
    from modalflow.control_plane import connect
    from modalflow.log_volume import LogVolume

    settings = Settings.read(conf_of_team(team))
    control_plane = connect(conn_id=settings.conn_id, environment=settings.environment, hook=modal_hook)
    return LogVolume(control_plane, settings.names)


def is_in_use() -> bool:
    """Whether Airflow reads task logs through this module."""
    from modalflow.airflow_compat import remote_task_log

    return isinstance(remote_task_log(), ModalVolumeLogIO)


REMOTE_TASK_LOG = ModalVolumeLogIO()
DEFAULT_REMOTE_CONN_ID = "modal_default"
