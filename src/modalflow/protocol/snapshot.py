"""An executor's report: one small text per executor, in a Dict of their own.

A hint for users, never a source of decisions. It is some seconds old, and a killed executor leaves its last one behind.
Plain JSON; readers accept those of other versions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modalflow.errors import MalformedMessageError
from modalflow.names import TaskTry
from modalflow.protocol.messages import plain_fields
from modalflow.support.described import describe
from modalflow.support.text import from_json, one_line

#: Calls listed in one report. The others are counted.
LISTED_CALLS = 2000

#: Seconds between reports without changes, and seconds until an executor without a report counts as gone.
SIGN_OF_LIFE = 60.0
SILENT_FOR = 3 * SIGN_OF_LIFE

WAITING = "waiting"
"""Modal has not taken it yet."""
SUBMITTED = "submitted"
"""It has a function call. The ledger shows whether a container has begun it."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """One call of an executor without an outcome."""

    work_id: str
    label: str
    state: str
    since: float
    """Seconds since the epoch: when the executor took it from Airflow, or from another scheduler."""
    function_call_id: str = ""
    profile: str = ""
    submissions: int = 0
    task: TaskTry | None = None
    """The try of a task instance, if it is one."""
    reason: str = ""
    """Why it waits, in a few words, if the executor keeps it from Modal."""
    spawned_at: float = 0.0
    """When the executor last sent it to Modal, in seconds since the epoch; 0 if it has not."""


_COLUMNS = tuple(f.name for f in dataclasses.fields(InFlight))


@dataclass(frozen=True)
class Snapshot:
    """One executor as it was at ``published_at``."""

    partition: str
    host: str = ""
    pid: int = 0
    job_id: str = ""
    team: str = ""
    version: str = ""
    started_at: float = 0.0
    published_at: float = 0.0
    interval: float = 10.0
    """Seconds between two snapshots."""
    states: Mapping[str, int] = field(default_factory=dict)
    """State → how many calls in flight are in it."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Event → its count since the start."""
    obstacle: str = ""
    """Why Modal takes nothing at present; empty while it does."""
    trouble: str = ""
    """The executor's last warning or error in its log."""
    trouble_at: float = 0.0
    installation: str = ""
    """A problem of the modalflow in the executor's process; empty if there is none."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that the doctor compares with its own machine's; see ``airflow_compat.tokens.settings_to_compare``."""
    home: str = ""
    """The id of the Airflow home that it published for its tasks; empty if there is none."""
    budgets: tuple[str, ...] = ()
    """The budgets that are used up, and what follows, for users."""
    held: int = 0
    """How many calls wait because of budgets or paused profiles."""
    paused: Mapping[str, int] | None = None
    """Paused profiles, as known to the executor, each with ``ProfileHold.id``. None: it is too old to pause any."""
    held_by_profile: Mapping[str, int] = field(default_factory=dict)
    """Paused profile → how many of the held calls wait for it."""
    on_modal: Mapping[str, int] = field(default_factory=dict)
    """Profile → how many calls in flight have a function call, or are being submitted."""
    calls: Sequence[InFlight] = ()
    more: int = 0
    """Number of calls in flight outside the list."""

    @property
    def in_flight(self) -> int:
        return len(self.calls) + self.more

    def is_silent(self, now: float) -> bool:
        """Return whether the report is too old for a living executor."""
        return now - self.published_at > SILENT_FOR + self.interval

    def to_json(self) -> str:
        """Calls are rows below one list of columns: their names in each would be half of the text."""
        wire: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "calls"}
        wire["columns"] = _COLUMNS
        wire["rows"] = [[getattr(call, name) for name in _COLUMNS] for call in self.calls]
        return json.dumps(wire, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> Snapshot:
        """Read the result of ``to_json``. Raises MalformedMessageError for anything else."""
        try:
            wire = from_json(str(text))
            calls = tuple(_call(wire["columns"], row) for row in wire["rows"])
            return cls(**plain_fields(cls, wire) | {"calls": calls})
        except (KeyError, TypeError, ValueError) as error:
            shown = one_line(describe(error))
            raise MalformedMessageError(f"An executor's snapshot is malformed: {shown}") from error


def _call(columns: Sequence[str], row: Sequence[Any]) -> InFlight:
    values = plain_fields(InFlight, dict(zip(columns, row, strict=True)))
    return InFlight(**values | {"task": TaskTry.read(values.get("task"))})
