"""Sums of records, by DAG run or another key. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from modalflow.cost.rates import Rates, UnknownRateError, exact, gpu_of
from modalflow.cost.usage import Record, settled

#: The group of work outside of DAG runs: callbacks, connection tests, your own commands. No DAG can have this id, but
#: one could have "-".
NO_RUN = "(none)"


@dataclass
class Sum:
    """The sum of several records. Figures are exact, so the order of adding does not matter."""

    calls: int = 0
    tries: set[tuple[str, ...]] = field(default_factory=set)
    lost: int = 0
    queued: Decimal = Decimal(0)
    starting: Decimal = Decimal(0)
    running: Decimal = Decimal(0)
    idle: Decimal = Decimal(0)
    occupied: Decimal = Decimal(0)
    core_seconds: Decimal = Decimal(0)
    gib_seconds: Decimal = Decimal(0)
    gpu_seconds: dict[str, Decimal] = field(default_factory=dict)
    cpu_used: Decimal = Decimal(0)
    asked_mib: float = 0.0
    """The largest memory request of one record."""
    used_mib: float = 0.0
    """The largest known memory use of one record."""
    dollars: Decimal = Decimal(0)
    unpriced: Counter[str] = field(default_factory=Counter)
    """Resource without a rate → number of records. `dollars` does not include them."""

    @property
    def tasks(self) -> int:
        """Tries of task instances, and other work."""
        return len(self.tries)

    def add(self, record: Record, rates: Rates) -> None:
        self.calls += 1
        self.tries.add(_try_of(record))
        self.lost += record.is_of_killed
        for name in ("queued", "starting", "running", "idle", "occupied", "core_seconds", "gib_seconds"):
            setattr(self, name, getattr(self, name) + exact(getattr(record, name)))
        self.cpu_used += exact(record.cpu_seconds)
        self.used_mib = max(self.used_mib, record.memory_mib)
        if record.reserved is not None:
            self.asked_mib = max(self.asked_mib, record.reserved.memory_mib)
            if record.reserved.gpu:
                model, count = gpu_of(record.reserved.gpu)
                self.gpu_seconds[model] = self.gpu_seconds.get(model, Decimal(0)) + exact(record.occupied) * count
        try:
            self.dollars += rates.dollars(record)
        except UnknownRateError as error:
            self.unpriced[str(error)] += 1


def _try_of(record: Record) -> tuple[str, ...]:
    if not record.dag_id:
        return (record.work_id or record.function_call_id,)
    return (record.dag_id, record.run_id, record.task_id, str(record.map_index), str(record.try_number))


def _task(record: Record) -> str:
    index = f"[{record.map_index}]" if record.map_index >= 0 else ""
    return f"{record.task_id}{index}" if record.dag_id else record.label


#: Grouping → the names of its columns, and a record's values in them.
GROUPINGS: Mapping[str, tuple[tuple[str, ...], Callable[[Record], tuple[str, ...]]]] = {
    "run": (("dag", "run"), lambda r: (r.dag_id or NO_RUN, r.run_id or NO_RUN)),
    "dag": (("dag",), lambda r: (r.dag_id or NO_RUN,)),
    "task": (("dag", "task"), lambda r: (r.dag_id or NO_RUN, r.task_id or NO_RUN)),
    "try": (
        ("dag", "run", "task", "try"),
        lambda r: (r.dag_id or NO_RUN, r.run_id or NO_RUN, _task(r), str(r.try_number or NO_RUN)),
    ),
    "profile": (("profile",), lambda r: (r.profile or NO_RUN,)),
    "day": (("day",), lambda r: (datetime.fromtimestamp(r.taken_at, UTC).strftime("%Y-%m-%d"),)),
}


def summed(records: Iterable[Record], rates: Rates, by: str = "run") -> tuple[dict[tuple[str, ...], Sum], Sum]:
    """Return the sums by group, in the order of their beginnings, and the total."""
    _, key_of = GROUPINGS[by]
    groups: dict[tuple[str, ...], Sum] = {}
    whole = Sum()
    for record in sorted(settled(records), key=lambda r: (r.taken_at, r.function_call_id)):
        groups.setdefault(key_of(record), Sum()).add(record, rates)
        whole.add(record, rates)
    return groups, whole
