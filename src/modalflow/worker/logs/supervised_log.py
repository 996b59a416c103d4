"""The log of a workload whose supervisor opens the log file: Airflow writes it in parts.

If the deployment has a remote logging of its own, Airflow's log handler uploads the file that Airflow opened, under the
path that Airflow chose. That file is then written as well, and the parts show the log while the task runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalflow.airflow_compat import replaced as rows
from modalflow.names import stored_log_path
from modalflow.support.replaced import replace
from modalflow.worker.environment import BASE_LOG_FOLDER
from modalflow.worker.logs.log_files import PartWriter
from modalflow.worker.zygote.protocol import ForkRequest


@contextmanager
def log_in_parts(request: ForkRequest, workload: Any, opened: Callable[[PartWriter], PartWriter]) -> Iterator[Any]:
    """Write the log of a workload that is supervised within this context to the files of the request.

    Yields the workload with the path of its log, relative to Airflow's log folder in this container. ``opened`` gets
    the open log, and returns it.
    """
    first = Path(request.log_file)
    if os.environ.get(BASE_LOG_FOLDER) == request.log_root:
        _open_logs_with(lambda _: opened(PartWriter(first)))
        yield workload.model_copy(update={"log_path": str(first.relative_to(request.log_root))})
        return
    uploaded: list[Path] = []

    def open_log(file: Path) -> PartWriter:
        uploaded.append(file)
        # Both files get the same lines from now on. So far there is only the first line.
        file.write_bytes(first.read_bytes())
        return opened(PartWriter(first, copy=file))

    _open_logs_with(open_log)
    try:
        # Airflow's file is on this disk too, which does not accept a name of more than 255 bytes.
        yield workload.model_copy(update={"log_path": workload.log_path and stored_log_path(workload.log_path)})
    finally:
        # They are uploaded now. A later function call of the same try must add only its own lines to the upload.
        for file in uploaded:
            file.unlink(missing_ok=True)


def _open_logs_with(open_log: Callable[[Path], PartWriter]) -> None:
    """Make Airflow open log files with this function. Airflow then only writes bytes to one and flushes it."""
    original = rows.INIT_LOG_FILE.original()

    class LogFile:
        """The methods of a Path that the supervisor uses."""

        def __init__(self, path: Path) -> None:
            self._path = path

        def open(self, *_: Any) -> PartWriter:
            return open_log(self._path)

    def init_log_file(local_relative_path: str) -> LogFile:
        return LogFile(original(local_relative_path))

    replace(rows.INIT_LOG_FILE, init_log_file)
