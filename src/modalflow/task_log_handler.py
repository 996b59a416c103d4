"""Airflow's own handler of task logs, with support for long names.

``airflow_logging.LOGGING_CONFIG`` names it. Airflow imports it when it configures logging.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from airflow.utils.log.file_task_handler import FileTaskHandler


class TaskLogHandler(FileTaskHandler):
    """FileTaskHandler with support for impossible paths: it treats them as paths without a file."""

    def _read_from_local(self, worker_log_path: Path) -> Any:
        """Return the result of Airflow's handler; nothing for a path with a name of more than 255 bytes.

        Airflow searches for a local copy of each running task's log. With ids of 250 characters, this raises OSError,
        and its API answers with HTTP 500. The logs Volume has shorter names.
        """
        try:
            return super()._read_from_local(worker_log_path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return [], []
