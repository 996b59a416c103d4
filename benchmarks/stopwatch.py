"""In a supervisor's process: reports the end of a task's process and the return of its supervisor to the benchmark.

The same for both executors. Preloaded into the worker's zygote and imported by ``timed_local_executor``.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.execution_time.supervisor import WatchedSubprocess

from benchmarks import STOPWATCH_PORT

_run_workload = BaseExecutor.run_workload
_on_socket_closed = WatchedSubprocess._on_socket_closed
_closed_at = 0.0


def on_socket_closed(self: Any, sock: Any) -> None:
    global _closed_at
    _closed_at = time.time()
    _on_socket_closed(self, sock)


def run_workload(workload: Any, **how: Any) -> int:
    began = time.time()
    code = _run_workload(workload, **how)
    said = {"ti": str(workload.ti.id), "began": began, "exited": _closed_at, "returned": time.time()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(json.dumps(said).encode(), ("127.0.0.1", int(os.environ[STOPWATCH_PORT])))
    return code


setattr(WatchedSubprocess, "_on_socket_closed", on_socket_closed)  # noqa: B010  mypy forbids the assignment.
setattr(BaseExecutor, "run_workload", staticmethod(run_workload))  # noqa: B010  And this one.
