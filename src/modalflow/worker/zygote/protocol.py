"""What the container's main process and a zygote say to each other: one JSON object a line.

Both ends are the same installed version, so nothing is versioned. Orders hold tokens: they are never logged, and go
through sockets of their own, which the zygote hands on without reading them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from modalflow.protocol.messages import Kind, State


@dataclass(frozen=True)
class Order:
    """Run one workload or command in a process of its own."""

    id: str
    kind: Kind
    segment: str
    """The log file, absolute. It exists."""
    log_root: str
    """The folder to which Airflow's log paths are relative."""
    env: Mapping[str, str] = field(repr=False)
    """The complete environment of the process."""
    workload: str | None = field(default=None, repr=False)
    """The workload as Airflow serialises it, or the token that a probe tries; it holds a token."""
    command: list[str] | str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a workload or command ended, as told by the process that ran it."""

    state: State
    return_code: int | None = None
    final_state: str | None = None
    reason: str | None = None
    cause: str = ""
    """A reasons.Cause value, where the reason is not what ran's own."""


@dataclass(frozen=True)
class Used:
    """What the processes of an order used, as the kernel counted it for the zygote that reaped them."""

    seconds: float
    """From the fork to the end."""
    cpu_seconds: float
    """Of all of them; and what the zygote itself has used since it last told."""
    peak_mib: float
    """The most memory that one of them had."""


@dataclass(frozen=True)
class Ending:
    """How the process of an order ended, as told by the zygote."""

    id: str
    return_code: int
    """Negative: the number of the signal that ended it."""
    outcome: Outcome | None
    """None if the process ended without telling one."""
    used: Used | None = field(default=None, compare=False)
    """None if no process ran."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def order_from(message: Mapping[str, Any]) -> Order:
    values = {f.name: message[f.name] for f in fields(Order)}
    return Order(**values | {"kind": Kind(message["kind"])})


def outcome_line(data: bytes) -> Outcome | None:
    """Read the line in which a process told its outcome; None if there is none, or something else was written."""
    try:
        return outcome_from(json.loads(data)) if data.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def outcome_from(message: Mapping[str, Any]) -> Outcome:
    return Outcome(
        State(message["state"]),
        message.get("return_code"),
        message.get("final_state"),
        message.get("reason"),
        message.get("cause") or "",
    )


def ending_to_wire(ending: Ending) -> dict[str, Any]:
    return {"event": "ended", **asdict(ending)}


def ending_from(message: Mapping[str, Any]) -> Ending:
    outcome, used = message["outcome"], message["used"]
    return Ending(
        message["id"],
        message["return_code"],
        outcome_from(outcome) if outcome else None,
        Used(**used) if used else None,
    )


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
