"""The last runs of each task, from usage records, and what the next run needs. No I/O and no clock.

A task's runs are those of all its mapped siblings, in all DAG runs. A history is small: `KEPT_TASKS` tasks with
`LAST_RUNS` runs each, and as many that failed. Failures take no place of others: a task that fails early for days, such
as in an outage, still needs what it needed before.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modalflow.cost.usage import LOST, OUT_OF_MEMORY, Record, Reserved

#: How many runs of a task count, and how many tasks are kept: those with the latest runs.
LAST_RUNS = 20
KEPT_TASKS = 5_000

#: The share of runs covered by a size with a margin. The largest of them is covered in any case.
PERCENTILE = 0.95
MARGIN = 1.2
#: The margin below which a size is changed.
LEAST_MARGIN = 1.1

#: After an out-of-memory end, a run needs so many times as much as it had, as far as is known.
NEEDS_AFTER_OOM = 2.0

#: The sizes of memory in MiB, and of processors in cores. There are few of them, since each is a container pool. The
#: last ones are the most that Modal grants one container.
MEMORY_SIZES: Sequence[float] = tuple(
    sorted([128 * 2.0**n for n in range(12)] + [192 * 2.0**n for n in range(11)] + [336 * 1024.0])
)
CPU_SIZES: Sequence[float] = tuple(0.125 * 2.0**n for n in range(10))

#: Final states of runs that failed.
_FAILED = ("failed", "up_for_retry")

#: The shortest time for a figure of cores. A shorter run is mostly its start.
_LEAST_SECONDS = 1.0


class TaskKey(NamedTuple):
    """A task, with all its mapped siblings."""

    dag_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Run:
    """One function call of a task. A deferred or rescheduled try has several."""

    ended_at: float
    """Seconds since the epoch, by the container's clock."""
    outcome: str
    """As in ``Record.outcome``."""
    seconds: float
    """Lifetime of its process."""
    memory_mib: float
    """The largest memory in use, with the worker's; 0 if unknown."""
    cores: float
    """Mean of the cores in use; 0 if unknown."""
    reserved: Reserved | None
    """What it asked for; None if unknown."""
    limit_mib: float = 0.0
    """The memory that it exceeded, if it ran out of memory and that is known."""

    @property
    def out_of_memory(self) -> bool:
        return self.outcome == OUT_OF_MEMORY

    @property
    def failed(self) -> bool:
        """Whether it failed for a reason of its own, perhaps early."""
        return self.outcome in _FAILED

    @classmethod
    def of(cls, record: Record, reserved: Reserved | None = None) -> Run:
        """Return the run of a record. ``reserved`` is an object equal to the record's, shared with other runs."""
        return cls(
            ended_at=record.ended_at,
            outcome=record.outcome,
            seconds=record.running,
            memory_mib=record.memory_mib,
            cores=record.cpu_seconds / max(record.running, _LEAST_SECONDS),
            reserved=reserved or record.reserved,
            limit_mib=record.limit_mib,
        )


class History:
    """The last runs of tasks."""

    def __init__(self) -> None:
        self._runs: dict[TaskKey, list[Run]] = {}
        self._asked: dict[Reserved, Reserved] = {}
        """Equal requests are one object: a thousand tasks have few different ones."""

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, records: Iterable[Record]) -> None:
        """Add records in any order, each once. Work of no task and of killed containers is ignored."""
        for record in records:
            if record.dag_id and record.task_id and record.outcome != LOST:
                self._add(TaskKey(record.dag_id, record.task_id), Run.of(record, self._shared(record.reserved)))
        if len(self._runs) > KEPT_TASKS:
            latest = sorted(self._runs.items(), key=lambda item: -item[1][-1].ended_at)
            self._runs = dict(latest[: KEPT_TASKS * 9 // 10])

    def _shared(self, reserved: Reserved | None) -> Reserved | None:
        if reserved is None:
            return None
        if len(self._asked) > KEPT_TASKS:
            self._asked.clear()
        return self._asked.setdefault(reserved, reserved)

    def _add(self, key: TaskKey, run: Run) -> None:
        runs = self._runs.setdefault(key, [])
        bisect.insort(runs, run, key=lambda each: each.ended_at)
        same = [each for each in runs if each.failed is run.failed]
        if len(same) > LAST_RUNS:
            runs.remove(same[0])

    def runs(self, dag_id: str, task_id: str) -> Sequence[Run]:
        """Return the last runs of a task and its mapped siblings, oldest first."""
        # A copy: another thread may add to it.
        return tuple(self._runs.get(TaskKey(dag_id, task_id), ()))

    @property
    def tasks(self) -> Mapping[TaskKey, Sequence[Run]]:
        """The last runs of all tasks, each oldest first."""
        return self._runs


@dataclass(frozen=True)
class Need:
    """The amounts for a task's next run."""

    size: float
    """MiB or cores: one of the sizes."""
    runs: int
    """How many runs the size follows from."""


def memory_need(runs: Sequence[Run], growth: float = NEEDS_AFTER_OOM) -> Need | None:
    """Return the memory for the next run in MiB; None if no run shows its use.

    ``growth`` is how many times as much a run needs as it had when it ran out of memory.
    """
    used = [(run, run.memory_mib) for run in runs if run.memory_mib and not run.out_of_memory]
    exceeded = [had * growth for run in runs if run.out_of_memory and (had := _had(run))]
    asked = [0.0 if run.out_of_memory or run.reserved is None else run.reserved.memory_mib for run in runs[-1:]]
    return _need(used, exceeded, asked, MEMORY_SIZES)


def cpu_need(runs: Sequence[Run]) -> Need | None:
    """Return the cores for the next run; None if no run shows its use."""
    used = [(run, run.cores) for run in runs if run.cores and not run.out_of_memory]
    asked = [0.0 if run.reserved is None else run.reserved.cpu for run in runs[-1:]]
    return _need(used, [], asked, CPU_SIZES)


def _had(run: Run) -> float:
    return run.limit_mib or (run.reserved.memory_mib if run.reserved is not None else 0.0)


def _need(
    used: Sequence[tuple[Run, float]], exceeded: Sequence[float], asked: Sequence[float], sizes: Sequence[float]
) -> Need | None:
    if not used and not exceeded:
        return None
    amounts = [amount for _, amount in used]
    worst = max((*amounts, *exceeded))
    # An early failure shows nothing usual.
    usual = [amount for run, amount in used if not run.failed] or amounts
    most = percentile(usual) if usual else 0.0
    size = size_for(max(most * MARGIN, worst), sizes)
    for last in asked:
        # Each change starts a cold container pool, so a size stays if it is one step too large, or has some room left.
        one_above = sizes[min(sizes.index(size) + 1, len(sizes) - 1)]
        if last in sizes and max(most * LEAST_MARGIN, worst) <= last <= one_above:
            size = last
    return Need(size, len(used) + len(exceeded))


def size_for(amount: float, sizes: Sequence[float]) -> float:
    """Return the smallest size with this amount; the largest size if none has."""
    return sizes[min(bisect.bisect_left(sizes, amount), len(sizes) - 1)]


def percentile(values: Sequence[float], share: float = PERCENTILE) -> float:
    """Return the smallest value that at least this share of the values does not exceed. There must be a value."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
