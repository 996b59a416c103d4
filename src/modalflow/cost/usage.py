"""The record of a function call's resources: a line of JSON, written by the worker and read by `modalflow cost`.

The two may have different versions. Unknown fields are ignored, and missing ones have defaults. The reader trusts
nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from modalflow.cost.meter import Meter
from modalflow.cost.timeline import Timeline
from modalflow.errors import MalformedMessageError
from modalflow.support.text import ID, LINE, from_json, one_line

#: Modal's reservation without a request (modal.com/docs/guide/resources).
DEFAULT_CPU = 0.125
DEFAULT_MEMORY_MIB = 128

#: No larger number is a time in seconds since the epoch: the last second of the year 9999, the end of dates.
_LARGEST = 253_402_300_799

#: No container lives for longer, in seconds. The days of longer work would be too many to count one by one.
LONGEST_LIFE = 31 * 86_400

#: The outcome of work in a killed container. Another container recorded it, and knows only the times.
LOST = "lost"

#: The outcome of work in a container killed for its memory. The executor recorded it, and knows the times.
OUT_OF_MEMORY = "out-of-memory"

#: The outcomes in killed containers. Their records have the whole time of the container.
KILLED = (LOST, OUT_OF_MEMORY)


@dataclass(frozen=True)
class Reserved:
    """The resources requested from Modal for a container."""

    cpu: float = DEFAULT_CPU
    """Cores."""
    memory_mib: float = DEFAULT_MEMORY_MIB
    gpu: str = ""
    regions: tuple[str, ...] = ()
    cloud: str = ""
    nonpreemptible: bool = False
    limit_mib: float = 0.0
    """The memory at which Modal kills the container; 0 without such a limit, or if an older worker wrote the record."""
    timeout: float = 0.0
    """The time limit of the function call in seconds; 0 if unknown."""

    @classmethod
    def read(cls, resources: Mapping[str, Any]) -> Reserved:
        """Return the resources of a submission: Modal's own names, with amounts or (request, limit)."""
        region = resources.get("region") or resources.get("regions") or ()
        return cls(
            cpu=_amount(resources.get("cpu"), DEFAULT_CPU),
            memory_mib=_amount(resources.get("memory"), DEFAULT_MEMORY_MIB),
            gpu=_gpu(resources.get("gpu")),
            regions=(region,) if isinstance(region, str) else tuple(str(each) for each in region),
            cloud=str(resources.get("cloud") or ""),
            nonpreemptible=bool(resources.get("nonpreemptible")),
            limit_mib=memory_limit(resources),
            timeout=longest(resources),
        )


def most_memory(resources: Mapping[str, Any]) -> float:
    """Return the memory in MiB granted by the resources of a submission: the limit, or the request without one."""
    asked = resources.get("memory")
    return _amount(asked[-1:] if isinstance(asked, list | tuple) else asked, DEFAULT_MEMORY_MIB)


def memory_limit(resources: Mapping[str, Any]) -> float:
    """Return the memory in MiB at which Modal kills a container with these resources; 0 if there is no limit."""
    asked = resources.get("memory")
    return _amount(asked[1:2], 0.0) if isinstance(asked, list | tuple) else 0.0


def longest(resources: Mapping[str, Any]) -> float:
    """Return the timeout in seconds granted by the resources of a submission; 0 if unknown."""
    return _amount(resources.get("timeout"), 0.0)


def _amount(asked: Any, default: float) -> float:
    request = asked[0] if isinstance(asked, list | tuple) and asked else asked
    return float(request) if _is_number(request) and request > 0 else default


def _gpu(asked: Any) -> str:
    """Return a GPU request as one text. A list of acceptable GPUs stays one text, because the actual one is unknown."""
    return ",".join(str(each) for each in asked) if isinstance(asked, list | tuple) else str(asked or "")


def _is_number(value: object) -> TypeGuard[float]:
    # An integer of hundreds of digits is too large to ask whether it is finite.
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


@dataclass(frozen=True)
class Record:
    """The resources of one function call. A deferred or rescheduled try has several."""

    function_call_id: str
    container_id: str
    taken_at: float
    """When the container took it: seconds since the epoch, by the container's clock."""
    dag_id: str = ""
    task_id: str = ""
    run_id: str = ""
    map_index: int = -1
    try_number: int = 0
    label: str = ""
    work_id: str = ""
    profile: str = ""
    team: str = ""
    """The team of its executor; empty if it has none, or is older than 0.5."""
    outcome: str = ""
    """Airflow's final state, if the supervisor reported it; otherwise the state of the work, LOST or OUT_OF_MEMORY."""
    reserved: Reserved | None = None
    """None if the submission did not have it."""
    queued: float = 0.0
    """Seconds from submission until there was a container, by two clocks: a rough figure."""
    starting: float = 0.0
    """Seconds from there until its process ran. Includes the container's start, if that was for this call."""
    cold: float = 0.0
    """Of ``starting``, the seconds of the container's own start, until ``taken_at``; 0 in a warm container, in one
    restored from a snapshot, and of workers before 0.5."""
    running: float = 0.0
    """Lifetime of its process in seconds."""
    idle: float = 0.0
    """Idle seconds of the container before it."""
    occupied: float = 0.0
    """Seconds of the container for this call: `idle`, and its share of the seconds with this call."""
    cpu_seconds: float = 0.0
    """Use of its processes, and of the worker at the same time."""
    peak_mib: float = 0.0
    """The largest memory of one of its processes; 0 if unknown."""
    worker_mib: float = 0.0
    """The largest memory of the container's main process."""
    limit_mib: float = 0.0
    """The memory that the container exceeded, if the outcome is OUT_OF_MEMORY and that is known."""

    @property
    def ready_at(self) -> float:
        """When its process ran."""
        return self.taken_at + max(0.0, self.starting - self.cold)

    @property
    def ended_at(self) -> float:
        return self.ready_at + self.running

    @property
    def is_of_killed(self) -> bool:
        """Whether the container was killed, so that another process wrote the record."""
        return self.outcome in KILLED

    @property
    def memory_mib(self) -> float:
        """The largest known memory of the container for this call."""
        return self.peak_mib + self.worker_mib if self.peak_mib else 0.0

    @property
    def core_seconds(self) -> float:
        """The billed memory: the larger of request and use."""
        reserved = self.reserved or Reserved()
        return max(reserved.cpu * self.occupied, self.cpu_seconds)

    @property
    def gib_seconds(self) -> float:
        reserved = self.reserved or Reserved()
        return max(reserved.memory_mib, self.memory_mib) / 1024 * self.occupied

    def to_line(self, timeline: Timeline | None = None) -> str:
        """Return one line of JSON, without default values. Numbers are rounded to 0.1 ms and 0.0001 MiB."""
        values: dict[str, Any] = _changed(self)
        if self.reserved is not None:
            # Every reader needs these two.
            values["reserved"] = _changed(self.reserved) | {
                "cpu": self.reserved.cpu,
                "memory_mib": self.reserved.memory_mib,
            }
        if timeline is not None:
            values["timeline"] = timeline.to_wire(self.taken_at)
        return json.dumps(values, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Read the line of ``to_line``. Raises MalformedMessageError for anything else."""
        return cls.from_wire(parsed(line))

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Record:
        """Read the object in a line. Raises MalformedMessageError for anything else."""
        if missing := _NEEDED - wire.keys():
            raise MalformedMessageError(f"A usage record has no {' and no '.join(sorted(missing))}")
        values = {name: wire[name] for name in _CHECKS if name in wire}
        for name, value in values.items():
            if not _CHECKS[name](value):
                raise MalformedMessageError(f"A usage record's {name} is {one_line(repr(value), ID)}")
            if isinstance(value, str):
                values[name] = one_line(value)
        record = cls(**values, reserved=_read_reserved(wire.get("reserved")))
        if record.starting + record.running > LONGEST_LIFE or record.taken_at > _LARGEST - 2 * LONGEST_LIFE:
            raise MalformedMessageError("A usage record has times that no container can have")
        return record


def parsed(line: str) -> dict[str, Any]:
    """Return the object in a line of a usage file. Raises MalformedMessageError if there is none."""
    try:
        wire = from_json(line)
    except ValueError as error:
        raise MalformedMessageError(f"A usage record is not JSON: {line[:80]!r}") from error
    if not isinstance(wire, dict):
        raise MalformedMessageError(f"A usage record is {type(wire).__name__}; expected an object")
    return wire


def _changed(values: Record | Reserved) -> dict[str, Any]:
    """Return the fields with other values than the default."""
    found = {f.name: (getattr(values, f.name), f.default) for f in dataclasses.fields(values) if f.name != "reserved"}
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, (value, default) in found.items()
        if value != default
    }


def _read_reserved(wire: object) -> Reserved | None:
    if wire is None:
        return None
    try:
        values = dict(wire)  # type: ignore[call-overload]  # Anything that cannot be read so is malformed.
        cpu, memory = float(values["cpu"]), float(values["memory_mib"])
        regions = tuple(one_line(region, ID) for region in values.get("regions") or ())
        limit, timeout = (float(values.get(name) or 0.0) for name in ("limit_mib", "timeout"))
        if not all(0 <= amount < math.inf for amount in (cpu, memory, limit, timeout)):
            raise ValueError("amounts that are none")
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise MalformedMessageError(f"A usage record's reserved is {one_line(repr(wire), LINE)}") from error
    gpu, cloud = (one_line(values.get(name) or "", ID) for name in ("gpu", "cloud"))
    return Reserved(cpu, memory, gpu, regions, cloud, bool(values.get("nonpreemptible")), limit, timeout)


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    f.name: {
        "str": lambda value: isinstance(value, str),
        "int": lambda value: isinstance(value, int) and abs(value) <= _LARGEST,
        # Not isinstance, which is slower: a page about costs reads many thousands. No NaN is between two numbers.
        "float": lambda value: type(value) in (float, int) and 0 <= value <= _LARGEST,
    }[str(f.type)]
    for f in dataclasses.fields(Record)
    if f.name != "reserved"
}
_NEEDED = frozenset({"function_call_id", "container_id", "taken_at"})


def settled(records: Iterable[Record]) -> list[Record]:
    """Return the valid records. Records of killed containers get a share of their common time.

    If a killed container wrote its own record, that record counts: the kill came between the record and the end of the
    work.
    """
    reported: dict[tuple[str, str], Record] = {}
    lost: dict[tuple[str, str], Record] = {}
    for record in records:
        key = record.function_call_id, record.container_id
        if record.outcome == LOST:
            lost.setdefault(key, record)
        else:
            (lost if record.is_of_killed else reported)[key] = record
    left = [record for key, record in lost.items() if key not in reported]
    return [*reported.values(), *_shared(left, reported.values())]


def _shared(lost: list[Record], reported: Iterable[Record]) -> list[Record]:
    """Divide a lost container's time among its calls, so it does not count several times.

    The calls that it reported have their shares already; the others get what is left.
    """
    shares: dict[int, float] = {}
    containers = {record.container_id for record in lost}
    calls = [*lost, *(record for record in reported if record.container_id in containers)]
    moments = sorted(
        [(record.taken_at, 0, number) for number, record in enumerate(calls)]
        + [(record.ended_at, 1, number) for number, record in enumerate(calls)]
    )
    meters: dict[str, Meter] = {}
    for at, ends, number in moments:
        meter = meters.setdefault(calls[number].container_id, Meter(at))
        if ends:
            shares[number] = meter.end(number, at).own
        else:
            meter.begin(number, at)
    return [dataclasses.replace(record, occupied=shares[number]) for number, record in enumerate(lost)]
