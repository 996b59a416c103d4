"""Possible savings of tasks, from their usage records. No I/O and no clock: callers pass the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from modalflow.cost.history import (
    LAST_RUNS,
    MEMORY_SIZES,
    NEEDS_AFTER_OOM,
    Run,
    cpu_need,
    memory_need,
    percentile,
    size_for,
)
from modalflow.cost.rates import Rates, UnknownRateError
from modalflow.cost.usage import OUT_OF_MEMORY, Record, Reserved, longest, memory_limit

#: Seconds of a month, for figures a month.
MONTH = 30 * 86_400.0
#: The least seconds for an extrapolation to a month.
_LEAST_WINDOW = 86_400.0

#: If a run used this part of its memory limit or its timeout, it nearly ran out of it.
NEARLY = 0.9
#: Savings below this many dollars a month are no advice.
_LEAST_DOLLARS = Decimal("0.01")
#: If containers idle for this part of their time, they are worth a line.
_IDLE = 0.25
#: A set of options with fewer function calls for each container has a cold pool.
_COLD = 2.0
_LEAST_CALLS = 5

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class TaskAdvice:
    """One task, or all tasks with the shared containers of a profile, and a size to fit."""

    profile: str
    dag_id: str
    task_id: str
    """Empty, as is the DAG, for all tasks of a profile with shared containers."""
    runs_a_month: float
    asks: Reserved
    used_mib: float
    """Not exceeded by 95 of 100 runs; 0 if unknown."""
    used_cores: float
    needs_mib: float
    """0 if unknown."""
    needs_cores: float
    dollars: Decimal
    """A month, at the current rate of runs."""
    saves: Decimal
    """A month, if it asked for its needs."""
    risks: Sequence[str] = ()
    limit_mib: float = 0.0
    """The memory limit for the next try, if it was nearly or entirely used; otherwise 0."""
    timeout: float = 0.0
    """The timeout in seconds for the next try, if it was nearly or entirely used; otherwise 0. Modal may grant less."""
    prevents: Decimal = _NOTHING
    """Dollars a month of runs ended for want of memory or time."""

    @property
    def is_of_profile(self) -> bool:
        return not self.task_id

    @property
    def worth(self) -> Decimal:
        """Saved or prevented dollars a month."""
        return self.saves + self.prevents


@dataclass(frozen=True)
class IdleAdvice:
    """A profile whose containers wait for work."""

    profile: str
    idle_share: float
    """Part of the paid time between tasks. The time after a container's last task is not recorded."""
    dollars: Decimal
    """Of the idle time, a month."""
    containers_a_month: float


@dataclass(frozen=True)
class ColdAdvice:
    """A set of options with a container for nearly every function call."""

    profile: str
    asks: Reserved
    calls_a_month: float
    calls_a_container: float
    starting: float
    """Mean seconds of a start."""
    tasks: Sequence[str]
    larger: Reserved
    """Another set of the same profile with enough for these tasks, and warm containers."""


@dataclass(frozen=True)
class Advice:
    """All advice for one app."""

    days: float
    """The time span of the records."""
    dollars: Decimal
    """Of all work, a month."""
    tasks: Sequence[TaskAdvice] = ()
    """The largest saving first."""
    at_risk: Sequence[TaskAdvice] = ()
    idle: Sequence[IdleAdvice] = ()
    cold: Sequence[ColdAdvice] = ()


@dataclass
class _Group:
    records: list[Record] = field(default_factory=list)
    shared_by: int = 1


def advise(
    records: Sequence[Record], rates: Rates, granted: Mapping[str, Mapping[str, Any]], since: float, now: float
) -> Advice:
    """Return advice from the records since then. ``granted`` has the resources of each deployed profile."""
    if not records:
        return Advice(0.0, _NOTHING)
    began = max(since, min(record.taken_at for record in records))
    window = max(_LEAST_WINDOW, now - began)
    factor = Decimal(str(MONTH / window))
    advice = [_task(group, rates, granted, factor) for group in _groups(records, granted)]
    tasks = [each for each in advice if each.saves >= _LEAST_DOLLARS]
    at_risk = [each for each in advice if each.risks]
    return Advice(
        days=(now - began) / 86_400,
        dollars=_sum(records, rates) * factor,
        tasks=sorted(tasks, key=lambda each: (-each.saves, each.profile, each.dag_id, each.task_id)),
        at_risk=sorted(at_risk, key=lambda each: (-each.prevents, each.profile, each.dag_id, each.task_id)),
        idle=_idle(records, rates, factor),
        cold=_cold(records, factor),
    )


def _groups(records: Iterable[Record], granted: Mapping[str, Mapping[str, Any]]) -> Iterable[_Group]:
    """Return the records by task; those of a profile with shared containers together, because one request counts."""
    groups: dict[tuple[str, ...], _Group] = {}
    for record in records:
        if not record.dag_id or record.reserved is None:
            continue
        of_profile = granted.get(record.profile, {})
        shared_by = int(of_profile.get("concurrency") or 1)
        if shared_by > 1 and _same_size(record.reserved, Reserved.read(of_profile)):
            groups.setdefault((record.profile,), _Group(shared_by=shared_by)).records.append(record)
        else:
            groups.setdefault((record.profile, record.dag_id, record.task_id), _Group()).records.append(record)
    return groups.values()


def _same_size(reserved: Reserved, other: Reserved) -> bool:
    return (reserved.cpu, reserved.memory_mib, reserved.gpu) == (other.cpu, other.memory_mib, other.gpu)


def _task(group: _Group, rates: Rates, granted: Mapping[str, Mapping[str, Any]], factor: Decimal) -> TaskAdvice:
    records = sorted(group.records, key=lambda record: record.ended_at)
    last = records[-1]
    assert last.reserved is not None, "records without resources are in no group"
    runs = [Run.of(_alone(record, group.shared_by)) for record in records]
    # Of a task, the last runs show the needs of the next one; of a profile, all of its tasks count.
    recent = runs if group.shared_by > 1 else runs[-LAST_RUNS:]
    memory, cpu = memory_need(recent), cpu_need(recent)
    known_memory = [run.memory_mib for run in recent if run.memory_mib]
    known_cores = [run.cores for run in recent if run.cores]
    needs = dataclasses.replace(
        last.reserved,
        memory_mib=memory.size if memory is not None else last.reserved.memory_mib,
        cpu=cpu.size if cpu is not None else last.reserved.cpu,
    )
    today = [record for record in records if record.reserved == last.reserved]
    resized = [dataclasses.replace(record, reserved=needs) for record in today]
    of_profile = granted.get(last.profile, {})
    lost = [record for record in records if _ran_out(record, of_profile)]
    shared = group.shared_by > 1
    return TaskAdvice(
        profile=last.profile,
        dag_id="" if shared else last.dag_id,
        task_id="" if shared else last.task_id,
        runs_a_month=len(records) * float(factor),
        asks=last.reserved,
        used_mib=percentile(known_memory) if known_memory else 0.0,
        used_cores=percentile(known_cores) if known_cores else 0.0,
        needs_mib=memory.size if memory is not None else 0.0,
        needs_cores=cpu.size if cpu is not None else 0.0,
        dollars=_sum(records, rates) * factor,
        saves=max(_NOTHING, _sum(today, rates) - _sum(resized, rates)) * factor,
        risks=tuple(_risks(records, of_profile)),
        limit_mib=_next_limit(records, of_profile),
        timeout=_next_timeout(records, of_profile),
        prevents=_sum(lost, rates) * factor,
    )


def _alone(record: Record, shared_by: int) -> Record:
    """Return a record as if its container ran as many such calls as may share it."""
    if shared_by == 1:
        return record
    return dataclasses.replace(record, peak_mib=record.peak_mib * shared_by, cpu_seconds=record.cpu_seconds * shared_by)


def _limits(record: Record, of_profile: Mapping[str, Any]) -> tuple[float, float]:
    """Return the memory limit in MiB and the timeout in seconds of a record; 0 for none, or if unknown."""
    reserved = record.reserved or Reserved()
    return reserved.limit_mib or memory_limit(of_profile), reserved.timeout or longest(of_profile)


def _ran_out(record: Record, of_profile: Mapping[str, Any]) -> bool:
    _, timeout = _limits(record, of_profile)
    return record.outcome == OUT_OF_MEMORY or bool(timeout and record.outcome == "failed" and record.running >= timeout)


def _risks(records: Sequence[Record], of_profile: Mapping[str, Any]) -> Iterable[str]:
    memory, time = _used_of_limits(records, of_profile)
    if out := sum(record.outcome == OUT_OF_MEMORY for record in records):
        yield f"ran out of memory in {out} of {len(records)} runs"
    elif memory >= NEARLY:
        yield f"used up to {memory:.0%} of its memory limit"
    if time >= NEARLY:
        yield f"took up to {time:.0%} of its timeout"


def _used_of_limits(records: Sequence[Record], of_profile: Mapping[str, Any]) -> tuple[float, float]:
    """Return the largest used parts of the memory limit and of the timeout; 0 without them."""
    limits = [(record, *_limits(record, of_profile)) for record in records]
    memory = max((record.memory_mib / limit for record, limit, _ in limits if limit), default=0.0)
    time = max((record.running / timeout for record, _, timeout in limits if timeout), default=0.0)
    return memory, time


def _next_limit(records: Sequence[Record], of_profile: Mapping[str, Any]) -> float:
    out = [record for record in records if record.outcome == OUT_OF_MEMORY]
    memory, _ = _used_of_limits(records, of_profile)
    if not out and memory < NEARLY:
        return 0.0
    had = [_limits(record, of_profile)[0] or record.limit_mib for record in out or records]
    asked = max(record.reserved.memory_mib for record in records if record.reserved is not None)
    return size_for(NEEDS_AFTER_OOM * (max(had) or asked), MEMORY_SIZES)


def _next_timeout(records: Sequence[Record], of_profile: Mapping[str, Any]) -> float:
    _, time = _used_of_limits(records, of_profile)
    longest_now = max(_limits(record, of_profile)[1] for record in records)
    return 2 * longest_now if time >= NEARLY else 0.0


def _idle(records: Sequence[Record], rates: Rates, factor: Decimal) -> list[IdleAdvice]:
    found = []
    for profile, of_profile in _by(records, lambda record: record.profile).items():
        occupied = sum(record.occupied for record in of_profile)
        idle = sum(record.idle for record in of_profile)
        if not occupied or idle / occupied < _IDLE:
            continue
        dollars = _sum([dataclasses.replace(r, occupied=r.idle, cpu_seconds=0.0) for r in of_profile], rates) * factor
        containers = len({record.container_id for record in of_profile}) * float(factor)
        if dollars >= _LEAST_DOLLARS:
            found.append(IdleAdvice(profile, idle / occupied, dollars, containers))
    return sorted(found, key=lambda each: -each.dollars)


def _cold(records: Sequence[Record], factor: Decimal) -> list[ColdAdvice]:
    with_resources = [record for record in records if record.reserved is not None and record.dag_id]
    pools = _by(with_resources, lambda record: (record.profile, record.reserved))
    found = []
    for (profile, asks), of_pool in pools.items():
        containers = len({record.container_id for record in of_pool})
        others = [
            reserved
            for (name, reserved), other in pools.items()
            if name == profile and _calls_a_container(other) >= _COLD and _has_enough(reserved, asks)
        ]
        if len(of_pool) < _LEAST_CALLS or _calls_a_container(of_pool) >= _COLD or not others:
            continue
        starts = sorted((record.starting for record in of_pool), reverse=True)[:containers]
        found.append(
            ColdAdvice(
                profile=profile,
                asks=asks,
                calls_a_month=len(of_pool) * float(factor),
                calls_a_container=_calls_a_container(of_pool),
                starting=sum(starts) / len(starts),
                tasks=sorted({f"{record.dag_id}.{record.task_id}" for record in of_pool}),
                larger=min(others, key=lambda each: (each.memory_mib, each.cpu)),
            )
        )
    return sorted(found, key=lambda each: -each.calls_a_month * each.starting)


def _calls_a_container(records: Sequence[Record]) -> float:
    return len(records) / len({record.container_id for record in records})


def _has_enough(reserved: Reserved, wanted: Reserved) -> bool:
    same = (reserved.gpu, reserved.regions, reserved.cloud) == (wanted.gpu, wanted.regions, wanted.cloud)
    return same and reserved.cpu >= wanted.cpu and reserved.memory_mib >= wanted.memory_mib


def _by(records: Iterable[Record], key_of: Any) -> dict[Any, list[Record]]:
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(key_of(record), []).append(record)
    return found


def _sum(records: Iterable[Record], rates: Rates) -> Decimal:
    dollars = _NOTHING
    for record in records:
        try:
            dollars += rates.dollars(record)
        except UnknownRateError:
            continue
    return dollars
