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
from functools import cached_property
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
            self._on_volume(lambda volume: volume.add_local_file(relative, content, socket.gethostname()))

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str] | None]:
        """Return (sources, parts of the log); see LogVolume.read."""
        sources, texts = self._read(relative_path)
        return sources, texts or None

    def _read(self, relative_path: str) -> tuple[list[str], list[str]]:
        from modalflow.errors import ModalflowError

        try:
            return self._on_volume(lambda volume: volume.read(relative_path))
        except ModalflowError as error:
            return [str(error)], []

    def _on_volume(self, what: Callable[[LogVolume], _T]) -> _T:
        """Do something with the Volume; again with the credentials as they are then, where Modal refused those of
        before: an API server lives longer than a token."""
        from modal.exception import AuthError

        from modalflow.control_plane import forget
        from modalflow.errors import CredentialsError

        volume = self._volume
        try:
            return what(volume)
        except (AuthError, CredentialsError):
            forget(volume.control_plane)
            self.__dict__.pop("_opened", None)
            return what(self._volume)

    @property
    def _volume(self) -> LogVolume:
        pid = os.getpid()
        if self._pid != pid:
            self.__dict__.pop("_opened", None)
            self._pid = pid
        return self._opened

    _pid = 0

    @cached_property
    def _opened(self) -> LogVolume:
        from airflow.configuration import conf

        from modalflow.airflow_compat import modal_hook
        from modalflow.config import Settings
        from modalflow.control_plane import connect
        from modalflow.log_volume import LogVolume

        settings = Settings.read(conf)
        control_plane = connect(conn_id=settings.conn_id, environment=settings.environment, hook=modal_hook)
        return LogVolume(control_plane, settings.names)


def is_in_use() -> bool:
    """Whether Airflow reads task logs through this module."""
    from modalflow.airflow_compat import remote_task_log

    return isinstance(remote_task_log(), ModalVolumeLogIO)


REMOTE_TASK_LOG = ModalVolumeLogIO()
DEFAULT_REMOTE_CONN_ID = "modal_default"
