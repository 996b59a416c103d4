"""The log of a workload whose supervisor opens it: has Airflow write it in parts.

Where the deployment uses a remote logging of its own, Airflow's log handler uploads the file that Airflow knows of,
under the path that Airflow knows; that file is written as well, and the parts are then what can be read meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from modalflow.names import stored_log_path
from modalflow.worker.environment import BASE_LOG_FOLDER
from modalflow.worker.logs.parts import PartWriter
from modalflow.worker.zygote.protocol import Order


@contextmanager
def log_in_parts(order: Order, workload: Any) -> Iterator[Any]:
    """Have the log of the workload that is run within this written to the order's segment; yield the workload with the
    path of its log, relative to the folder that Airflow has logs in here."""
    first = Path(order.segment)
    if os.environ.get(BASE_LOG_FOLDER) == order.log_root:
        _open_logs_with(lambda _: PartWriter(first))
        yield workload.model_copy(update={"log_path": str(first.relative_to(order.log_root))})
        return
    whole: list[Path] = []

    def opened(file: Path) -> PartWriter:
        whole.append(file)
        # From here on both get the same; what there is before is the first line.
        file.write_bytes(first.read_bytes())
        return PartWriter(first, copy=file)

    _open_logs_with(opened)
    try:
        # Airflow's file is on this disk, too, where a name of more than 255 bytes has no place.
        yield workload.model_copy(update={"log_path": workload.log_path and stored_log_path(workload.log_path)})
    finally:
        # Uploaded by now. A later function call of the same try adds its own lines to that, and not these again.
        for file in whole:
            file.unlink(missing_ok=True)


def _open_logs_with(opened: Callable[[Path], PartWriter]) -> None:
    """Have Airflow open log files with this. Whatever it then does with one, it writes bytes and flushes."""
    from airflow.sdk import log

    original = log.init_log_file

    class LogFile:
        """As much of a Path as the supervisor uses."""

        def __init__(self, path: Path) -> None:
            self._path = path

        def open(self, *_: Any) -> PartWriter:
            return opened(self._path)

    cast(Any, log).init_log_file = lambda local_relative_path: LogFile(original(local_relative_path))
