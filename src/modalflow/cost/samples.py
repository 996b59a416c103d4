"""The use of processor and memory by a function call over time, in at most ``MOST`` points. No I/O, and no clock.

A line of JSON in a file beside the usage records, or in that of a container's running calls. Only pages for users read
it. The reader trusts nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from modalflow.errors import MalformedMessageError
from modalflow.support.text import ID, from_json, one_line

#: The most points of one call. If they are full, each two become one, and the next ones cover twice the time.
MOST: Final = 60

#: Points that a reader accepts: a newer worker may write more.
_MOST_READ: Final = 10 * MOST

#: Characters of a line that a reader accepts.
_LONGEST_LINE: Final = 64 * 1024

#: No larger number is a time, a number of cores or a memory in MiB.
_LARGEST: Final = 1e11


@dataclass(frozen=True)
class Samples:
    """The samples of one function call in one container. A short call has none."""

    function_call_id: str
    container_id: str
    began_at: float
    """When the first interval began, in seconds since the epoch by the container's clock."""
    interval: float
    """Seconds between two points: point n is about at ``began_at + (n + 1) * interval``."""
    cpu: tuple[float, ...] = ()
    """The average cores that its processes used within each interval."""
    mib: tuple[float, ...] = ()
    """The largest memory of one of its processes, as seen at the end of each interval. As many as in ``cpu``."""

    @property
    def seconds(self) -> float:
        """The time that they cover."""
        return self.interval * len(self.cpu)

    def to_line(self) -> str:
        """Return one line of JSON."""
        wire = asdict(self) | {
            "began_at": round(self.began_at, 3),
            "interval": round(self.interval, 3),
            "cpu": [round(each, 2) for each in self.cpu],
            "mib": [round(each) for each in self.mib],
        }
        return json.dumps(wire, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Samples:
        """Read the line of ``to_line``. Raises MalformedMessageError for anything else."""
        try:
            if len(line) > _LONGEST_LINE:
                raise ValueError("a line of this length")
            wire = from_json(line)
            samples = cls(
                _id(wire["function_call_id"]),
                _id(wire["container_id"]),
                _amount(wire["began_at"]),
                _amount(wire["interval"]),
                _points(wire["cpu"]),
                _points(wire["mib"]),
            )
            if len(samples.cpu) != len(samples.mib):
                raise ValueError("lists of different lengths")
            # The times of its points.
            _amount(samples.began_at + samples.seconds)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"Samples are malformed: {one_line(line, ID)}") from error
        return samples


@dataclass
class Series:
    """Collects the samples of one call: a rising number of CPU seconds, and a memory, from time to time."""

    began_at: float
    """Seconds by any clock, the same as in ``add``."""
    _at: float
    _cpu_seconds: float
    cpu: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, at: float, cpu_seconds: float) -> Series:
        """Begin a series with what was used until now."""
        return cls(at, at, cpu_seconds)

    @property
    def interval(self) -> float:
        """Seconds between two points on average."""
        return (self._at - self.began_at) / len(self.cpu) if self.cpu else 0.0

    def add(self, at: float, cpu_seconds: float, mib: float) -> bool:
        """Add a point; return whether there is room for no other, so that ``halve`` is due."""
        passed = at - self._at
        if passed <= 0:
            return False
        # It falls if a process has ended that none of the others waited for.
        self.cpu.append(max(0.0, cpu_seconds - self._cpu_seconds) / passed)
        self.mib.append(mib)
        self._at, self._cpu_seconds = at, cpu_seconds
        return len(self.cpu) >= MOST

    def halve(self) -> None:
        """Make one point of each two of an even number: the average of the cores, the larger memory."""
        pairs = range(0, len(self.cpu), 2)
        self.cpu = [(self.cpu[n] + self.cpu[n + 1]) / 2 for n in pairs]
        self.mib = [max(self.mib[n], self.mib[n + 1]) for n in pairs]


def _id(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return one_line(value, ID)


def _amount(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("expected a number")
    if not 0 <= value < _LARGEST or math.isnan(value):
        raise ValueError("expected a finite number")
    return value


def _points(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > _MOST_READ:
        raise TypeError("expected a short list")
    return tuple(_amount(each) for each in value)
