"""The messages between the container's main process and a zygote: one JSON object for each line.

Both sides run the same installed version, so nothing is versioned. Fork requests hold tokens: they are never logged.
They travel through sockets of their own, which the zygote passes on without reading them.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from modalflow.protocol.messages import Kind, State

#: Lets a supervisor leave a failure of its task to the executor to report.
STOP_NOTICE = signal.SIGUSR1

#: What asks the process of a request to end → the signals for it, in their order. Airflow's supervisor forwards SIGTERM
#: to the task, whose ``on_kill()`` then runs; that of a command to the command.
SIGNALS = {"interrupt": (signal.SIGTERM,), "stop": (STOP_NOTICE, signal.SIGTERM)}


@dataclass(frozen=True)
class ForkRequest:
    """A request to execute one workload or command in a process of its own."""

    id: str
    kind: Kind
    log_file: str
    """The first file of the log, as an absolute path. It exists."""
    log_root: str
    """The folder to which Airflow's log paths are relative."""
    env: Mapping[str, str] = field(repr=False)
    """The complete environment of the process."""
    workload: str | None = field(default=None, repr=False)
    """The workload as Airflow serialises it, or the token that a probe tests; it holds a token."""
    command: list[str] | str | None = None


@dataclass(frozen=True)
class Moments:
    """Moments of a supervised task, in seconds since the epoch; 0 if it did not come to that."""

    started_at: float = 0.0
    """When Airflow's API had let the task start."""
    first_line_at: float = 0.0
    """When the first line was written to its log."""
    task_ended_at: float = 0.0
    """When the supervisor had noticed the end of the task's process."""
    reported_at: float = 0.0
    """When Airflow's API had its final state from the supervisor."""


NO_MOMENTS = Moments()


@dataclass(frozen=True)
class Outcome:
    """The result of a workload or command, as reported by the process that executed it."""

    state: State
    return_code: int | None = None
    final_state: str | None = None
    reason: str | None = None
    cause: str = ""
    """A reasons.Cause value, unless the reason is the text of the work itself."""
    moments: Moments = field(default=NO_MOMENTS, compare=False)


@dataclass(frozen=True)
class ProcessUsage:
    """The resources that the processes of a request used, as the kernel counted them for the zygote."""

    seconds: float
    """From the request to the end."""
    cpu_seconds: float
    """Of all these processes from their fork on, and of the zygote itself since its last report."""
    peak_mib: float
    """The most memory that one of the processes had."""


@dataclass(frozen=True)
class ForkResult:
    """The end of the process of a request, as reported by the zygote."""

    id: str
    return_code: int
    """If negative, the number of the signal that ended the process."""
    outcome: Outcome | None
    """None if the process ended without reporting one."""
    usage: ProcessUsage | None = field(default=None, compare=False)
    """None if no process ran."""


@dataclass(frozen=True)
class ImportReport:
    """A zygote's report on its imports, once it can fork."""

    notes: tuple[str, ...] = ()
    """Warnings for the log of every task."""
    variables_read: frozenset[str] = frozenset()
    """Variables read by the host's code, in addition to those with a difference for every zygote."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def request_from_wire(message: Mapping[str, Any]) -> ForkRequest:
    """Read a request; the inverse of ``asdict``."""
    values = {f.name: message[f.name] for f in fields(ForkRequest)}
    return ForkRequest(**values | {"kind": Kind(message["kind"])})


def read_request(file: int) -> ForkRequest:
    """Read a request from an open file to its end, and close the file."""
    with open(file, "rb") as opened:
        return request_from_wire(json.loads(opened.read()))


def parse_outcome_line(data: bytes) -> Outcome | None:
    """Read the line in which a process reported its outcome; return None if there is no such line."""
    try:
        return outcome_from_wire(json.loads(data)) if data.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def outcome_from_wire(message: Mapping[str, Any]) -> Outcome:
    """Read an outcome; the inverse of ``asdict``."""
    return Outcome(
        State(message["state"]),
        message.get("return_code"),
        message.get("final_state"),
        message.get("reason"),
        message.get("cause") or "",
        Moments(**{name: float(value) for name, value in (message.get("moments") or {}).items()}),
    )


def result_to_wire(result: ForkResult) -> dict[str, Any]:
    """Return the message that reports a result."""
    return {"event": "ended", **asdict(result)}


def result_from_wire(message: Mapping[str, Any]) -> ForkResult:
    """Read a result; the inverse of ``result_to_wire``."""
    outcome, usage = message["outcome"], message["usage"]
    return ForkResult(
        message["id"],
        message["return_code"],
        outcome_from_wire(outcome) if outcome else None,
        ProcessUsage(**usage) if usage else None,
    )


def report_to_wire(report: ImportReport) -> dict[str, Any]:
    """Return the message for the end of the imports."""
    return {"event": "ready", "notes": report.notes, "variables_read": sorted(report.variables_read)}


def report_from_wire(message: Mapping[str, Any]) -> ImportReport:
    """Read a report; the inverse of ``report_to_wire``."""
    return ImportReport(tuple(message["notes"]), frozenset(message["variables_read"]))


class LineBuffer:
    """A buffer that cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes, and yield the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
