"""The course of a function call for users: its moments, its container, its options and its end.

It is a part of the call's usage record, on the same line (``recorded_call``). Readers of costs ignore it, so it costs
them almost nothing. The reader trusts nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modalflow.errors import MalformedMessageError
from modalflow.support.text import ID, LINE, one_line

#: Characters of a reason. The call's log has all of it.
REASON: Final = 400

#: Options of one task, and values of one option. No task sets more.
_OPTIONS: Final = 32

#: Seconds before and after ``taken_at`` in which a moment can be. No work waits for longer than a month on Modal.
_FURTHEST: Final = 62 * 86_400


@dataclass(frozen=True)
class Timeline:
    """The course of one function call.

    Times are seconds since the epoch; 0 means unknown, or that it did not come to that. The first two are by the
    executor's clock, the others by the container's. Two more moments are in the call's ``Record``: ``taken_at``, when
    the container received the call, and ``ended_at``, the end of the supervisor's or the command's process.
    """

    submitted_at: float = 0.0
    """When the executor took the work from Airflow."""
    spawned_at: float = 0.0
    """When the executor sent it to Modal; the last time, if it did so several times."""
    container_started_at: float = 0.0
    """When the container started, or was restored from a snapshot."""
    claimed_at: float = 0.0
    """When the container had claimed the work in the ledger."""
    started_at: float = 0.0
    """When Airflow's API had let the task start: Airflow shows it as running from then on. Only tasks have it."""
    first_line_at: float = 0.0
    """When the first line of the task, or of its supervisor, was written to the log. Only tasks have it."""
    task_ended_at: float = 0.0
    """When the supervisor had noticed the end of the task's process. Only tasks have it."""
    reported_at: float = 0.0
    """When Airflow's API had the task's final state from the supervisor. Only tasks have it, and only if the report is
    not left to the executor."""
    is_cold_start: bool = False
    """Whether the container started for this call."""
    number: int = 0
    """Which call of its container it was: 1 for the first; 0 if unknown."""
    image: str = ""
    """The id of the container's image."""
    region: str = ""
    """Where the container ran, as far as Modal reports it."""
    cloud: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The options that the task itself set, by the names of ``Submission.resources``. The granted ones are in the
    record's ``reserved``."""
    sized: Mapping[str, int] = field(default_factory=dict)
    """The resources that follow from the task's last runs: cpu or memory → how many runs."""
    cause: str = ""
    """The cause of an abnormal end (a reasons.Cause value), if any."""
    reason: str = ""
    """Why it ended as it did, in one line of at most ``REASON`` characters; empty after a normal end."""

    def to_wire(self, taken_at: float) -> dict[str, Any]:
        """Return JSON types without default values. Times are relative to ``taken_at``, which makes them short."""
        others = {name: getattr(self, name) for name in _FIELDS if name not in _TIMES}
        others["reason"] = one_line(self.reason, REASON)
        times = {name: round(at - taken_at, 3) for name in _TIMES if (at := getattr(self, name))}
        # A moment further away is none: a clock was wrong.
        near = {name: seconds for name, seconds in times.items() if abs(seconds) <= _FURTHEST}
        return near | {name: value for name, value in others.items() if value}

    @classmethod
    def from_wire(cls, wire: object, taken_at: float) -> Timeline:
        """Read the result of ``to_wire``. Raises MalformedMessageError for anything else."""
        if not isinstance(wire, dict):
            raise MalformedMessageError(f"A timeline is {type(wire).__name__}; expected an object")
        values: dict[str, Any] = {}
        for name, read in _FIELDS.items():
            if name in wire:
                try:
                    values[name] = read(wire[name])
                except (TypeError, ValueError) as error:
                    shown = one_line(repr(wire[name]), ID)
                    raise MalformedMessageError(f"A timeline's {name} is {shown}") from error
        return cls(**values | {name: taken_at + values[name] for name in _TIMES if name in values})


#: The timeline of a record from an older worker.
NO_TIMELINE: Final = Timeline()


def _moment(value: object) -> float:
    return _number(value, -_FURTHEST, _FURTHEST)


def _number(value: object, least: float, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    # NaN is outside too.
    if not least <= value <= most:
        raise ValueError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return int(_number(value, 0, 2**53))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(longest: int) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError
        return one_line(value, longest)

    return read


def _options(value: object) -> dict[str, Any]:
    return {one_line(name, ID): _option(each) for name, each in _items(value)}


def _option(value: object) -> Any:
    if isinstance(value, list):
        return [_scalar(each) for each in value[:_OPTIONS]]
    return _scalar(value)


def _scalar(value: object) -> bool | float | str | None:
    if value is None or isinstance(value, bool):
        return value
    return one_line(value, ID) if isinstance(value, str) else _number(value, -(2**53), 2**53)


def _items(value: object) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict):
        raise TypeError
    if len(value) > _OPTIONS:
        raise ValueError
    return list(value.items())


#: Field → its reader, which raises TypeError or ValueError.
_FIELDS: Final[Mapping[str, Callable[[object], Any]]] = {
    f.name: _moment if f.name.endswith("_at") else _text(LINE if f.name == "reason" else ID)
    for f in dataclasses.fields(Timeline)
} | {
    "is_cold_start": _flag,
    "number": _count,
    "asked": _options,
    "sized": lambda value: {one_line(name, ID): _count(each) for name, each in _items(value)},
}
_TIMES: Final = tuple(name for name, read in _FIELDS.items() if read is _moment)
