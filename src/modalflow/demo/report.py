"""The report at the end of the demo: one row per task instance, and the problems of the run.

No I/O: it gets the reports of Airflow, the metadata database and the control plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.markup import escape
from rich.table import Table

from modalflow.demo.airflow_api import TaskInstance

#: The example DAG has no operators settled by the scheduler alone. So every task instance must have a place, except
#: skipped ones.
EXPECTED_SKIPPED: Final = frozenset({"do_nothing"})

NOTHING: Final = "-"
#: Prefix of function call ids. Before there is one, Airflow has a work id.
CALL: Final = "fc-"

STYLES: Final[Mapping[str, str]] = {
    "success": "green",
    "failed": "bold red",
    "upstream_failed": "red",
    "skipped": "dim",
    "running": "bright_green",
    "up_for_retry": "yellow",
    "deferred": "magenta",
}


@dataclass(frozen=True)
class Row:
    """One task instance, and its place according to Airflow (``container``) and to Modal (``confirmed``)."""

    instance: TaskInstance
    function_call: str
    confirmed: frozenset[str]
    """The containers of the function call according to the control plane."""

    @property
    def container(self) -> str:
        """Its place according to Airflow: the worker's host name is its container's id."""
        return self.instance.hostname

    def problems(self, expected_skipped: Iterable[str]) -> list[str]:
        """Return why this task did not succeed in a Modal container; empty if it did."""
        state = self.instance.state or "none"
        label = self.instance.label
        if self.instance.task_id in expected_skipped:
            return [] if state == "skipped" else [f"{label} is {state}; the branch should have skipped it"]
        if state != "success":
            return [f"{label} is {state}; expected success"]
        if not self.function_call.startswith(CALL):
            return [f"{label} has no function call; its external_executor_id is {self.function_call!r}"]
        if self.container not in self.confirmed:
            seen = ", ".join(sorted(self.confirmed)) or "none"
            return [
                f"{label} ran on host {self.container or 'unknown'!r} according to Airflow; "
                f"Modal's containers of {self.function_call}: {seen}"
            ]
        return []


def problems(rows: Iterable[Row], expected_skipped: Iterable[str] = EXPECTED_SKIPPED) -> list[str]:
    """Return all problems of the run."""
    skipped = frozenset(expected_skipped)
    return [problem for row in rows for problem in row.problems(skipped)]


def seconds(first: datetime | None, last: datetime | None) -> str:
    """Return the time between two moments, or a dash; also a dash if the later one belongs to the previous try."""
    return f"{(last - first).total_seconds():.1f}" if first and last and first <= last else NOTHING


def table(rows: Iterable[Row]) -> Table:
    """Return the table at the end of the demo."""
    result = Table(title="All tasks and their containers", title_justify="left", header_style="bold")
    result.add_column("task")
    result.add_column("state")
    result.add_column("try", justify="right")
    result.add_column("function call", overflow="fold")
    result.add_column("container", overflow="fold")
    result.add_column("queued→start s", justify="right")
    result.add_column("start→end s", justify="right")
    for row in rows:
        instance = row.instance
        state = instance.state or "none"
        result.add_row(
            escape(instance.label),
            f"[{STYLES.get(state, 'default')}]{escape(state)}[/]",
            str(instance.try_number),
            escape(row.function_call) if row.function_call.startswith(CALL) else NOTHING,
            escape(row.container) or NOTHING,
            seconds(instance.queued, instance.started) if state != "skipped" else NOTHING,
            seconds(instance.started, instance.ended) if state != "skipped" else NOTHING,
        )
    return result
