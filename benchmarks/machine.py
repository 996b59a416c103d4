"""The machine of the figures, and the cost of processes there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from modalflow.support.linux import family

TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> str:
    """Return a line about the machine and the versions."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}, "
        f"modal {importlib.metadata.version('modal')}"
    )


def load() -> float:
    """Return the number of runnable processes over the last minute."""
    return os.getloadavg()[0]


def below(pid: int) -> list[int]:
    """Return the descendants of a process."""
    return family(pid)[1:]


def memory(pid: int) -> float:
    """Return the proportional set size of a process in MB: shared memory is divided among its users."""
    for line in _lines(Path(f"/proc/{pid}/smaps_rollup")):
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory_of_this() -> float:
    """Return the resident set size of this process in KiB."""
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    return 0.0


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time of processes so far."""
    total = 0
    for pid in pids:
        for line in _lines(Path(f"/proc/{pid}/stat")):
            after_name = line.rpartition(")")[2].split()
            total += int(after_name[11]) + int(after_name[12])
    return total / TICKS


def cpu_seconds_with_ended(pids: list[int]) -> float:
    """Return the same, including their ended and reaped children."""
    total = 0
    for pid in pids:
        for line in _lines(Path(f"/proc/{pid}/stat")):
            total += sum(map(int, line.rpartition(")")[2].split()[11:15]))
    return total / TICKS


def cpu_seconds_of_all() -> float:
    """Return the processor time of this whole machine since its start."""
    user, nice, system, _, _, irq, softirq = (int(word) for word in _lines(Path("/proc/stat"))[0].split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


class Sampling(ABC):
    """Takes samples in a thread of its own, every so many seconds, for the time of a ``with`` block."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @abstractmethod
    def sample(self) -> None:
        """Take one sample."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self.sample()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
