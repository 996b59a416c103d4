"""Airflow's own handler of task logs, for names that are longer than a file's.

``airflow_logging.LOGGING_CONFIG`` names it. Airflow imports it when it configures logging.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from airflow.utils.log.file_task_handler import FileTaskHandler


class TaskLogHandler(FileTaskHandler):
    """FileTaskHandler that takes a path which no file can have for one at which there is no file."""

    def _read_from_local(self, worker_log_path: Path) -> Any:
        """Return what Airflow's does; nothing, where the path has a name of more than 255 bytes.

        Airflow looks for a local copy of the log of every task that runs. With ids of 250 characters that is an OSError
        there, which its API answers with HTTP 500. On the logs Volume such names are stored shorter.
        """
        try:
            return super()._read_from_local(worker_log_path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return [], []
