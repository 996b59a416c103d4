"""A ModalExecutor whose scheduler dies at a line of the executor's own code: which one, a file says.

Loaded by the schedulers of the chaos stack. Each start takes one file of the folder that VARIABLE names, where there is
one: the number in it is how many lines of ``modalflow.executor``, whichever thread executes them, there are between
the first workload that Airflow hands over and a SIGKILL. Without a file it is a ModalExecutor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import modalflow.executor
from modalflow.executor.modal_executor import ModalExecutor

#: The environment variable that names the folder.
VARIABLE = "CHAOS_DOOMS"
CLASS = f"{__name__}.DoomedExecutor"

_CODE = str(Path(modalflow.executor.__file__).parent)


class Doom:
    """Counts lines from ``begin`` on, and kills at the last one."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        """For ``sys.settrace``: follow the executor's own code, and nothing else."""
        return self._line if frame.f_code.co_filename.startswith(_CODE) else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self._begun and event == "line":
            self._left -= 1
            if self._left <= 0:
                print(f"doomed at {frame.f_code.co_filename}:{frame.f_lineno}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


def take_doom() -> Doom | None:
    """Take a file that is left; each is taken once, whoever starts at the same time."""
    folder = Path(os.environ[VARIABLE])
    for path in sorted(folder.glob("*.doom")):
        taken = path.with_suffix(f".taken-by-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(taken)
            return Doom(int(taken.read_text()))
    return None


class DoomedExecutor(ModalExecutor):
    """See the module."""

    def start(self) -> None:
        self._doom = take_doom()
        if self._doom is not None:
            threading.settrace(self._doom.trace)
        super().start()

    def _process_workloads(self, workloads: Sequence[Any]) -> None:
        if self._doom is not None and workloads:
            self._doom.begin()
            sys.settrace(self._doom.trace)
        super()._process_workloads(workloads)
