"""What one executor's running work costs: one small text per executor, in the Dict of executors' reports.

Other executors and `modalflow cost` read it. Its size grows with the DAGs and profiles that run, not with the tasks.
Plain JSON; a reader trusts nothing, and ignores unknown fields.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from modalflow.errors import MalformedMessageError
from modalflow.support.described import describe
from modalflow.support.text import LINE, from_json, one_line

#: What the keys of these reports in the Dict begin with. A snapshot's key is the executor's partition alone.
SPENDING = "spending:"

#: Seconds after which a report no longer counts: another scheduler has adopted the work by then.
COUNTS_FOR = 300.0

#: Seconds by which the clock of another executor may be ahead. A report of a later time is none.
AHEAD = 3600.0

_MOST_DOLLARS = 1e12


@dataclass(frozen=True, slots=True)
class SpendingRow:
    """The running work of one DAG, profile and team."""

    dag: str
    profile: str
    team: str
    day: float
    """Dollars of the current day, up to the report."""
    month: float
    """Dollars of the current month, up to the report."""
    rate: float
    """Dollars a second."""


@dataclass(frozen=True)
class SpendingReport:
    """One executor's running costs at ``published_at``."""

    partition: str
    published_at: float
    """Seconds since the epoch."""
    rows: Sequence[SpendingRow] = ()

    def counts(self, now: float) -> bool:
        """Return whether the report is recent enough."""
        return -AHEAD < now - self.published_at < COUNTS_FOR

    def to_json(self) -> str:
        rows = [[row.dag, row.profile, row.team, row.day, row.month, row.rate] for row in self.rows]
        # Not "rows", by which a reader of snapshots takes a text for a snapshot.
        wire = {"partition": self.partition, "published_at": self.published_at, "spending": rows}
        return json.dumps(wire, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> SpendingReport:
        """Read the result of ``to_json``. Raises MalformedMessageError for anything else."""
        try:
            wire = from_json(str(text))
            rows = tuple(_row(row) for row in wire["spending"])
            return cls(one_line(wire["partition"], LINE), float(wire["published_at"]), rows)
        except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            shown = one_line(describe(error))
            raise MalformedMessageError(f"An executor's report of its spending is malformed: {shown}") from error


def _row(row: Sequence[object]) -> SpendingRow:
    dag, profile, team = (one_line(text, LINE) for text in row[:3])
    day, month, rate = (float(number) for number in row[3:6])  # type: ignore[arg-type]  # Anything else is malformed.
    if not all(0 <= number < _MOST_DOLLARS for number in (day, month, rate)):
        raise ValueError("no amount of dollars")
    return SpendingRow(dag, profile, team, day, month, rate)
