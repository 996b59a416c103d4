"""What the demo tells at its end: one row per task instance, and what is wrong with the whole.

Pure: it is handed what Airflow, the metadata database and the control plane said, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.markup import escape
from rich.table import Table

from modalflow.demo.airflow_api import TaskInstance

#: Operators that the scheduler settles by itself and no executor ever sees have no part in the example DAG, so every
#: task instance that is not skipped must have been somewhere.
EXPECTED_SKIPPED: Final = frozenset({"do_nothing"})

NOTHING: Final = "-"
#: How the ids of function calls begin. What has none yet has a work id there.
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
    """One task instance, and where it ran according to Airflow (``container``) and to Modal (``confirmed``)."""

    instance: TaskInstance
    function_call: str
    confirmed: frozenset[str]
    """The containers that the control plane says the function call ran in."""

    @property
    def container(self) -> str:
        """Where Airflow says it ran: the worker gives its container's id as its host name."""
        return self.instance.hostname

    def problems(self, expected_skipped: Iterable[str]) -> list[str]:
        """Why this is not a task that succeeded in a Modal container; nothing if it is."""
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
    """Everything that keeps the run from counting as a success."""
    skipped = frozenset(expected_skipped)
    return [problem for row in rows for problem in row.problems(skipped)]


def seconds(first: datetime | None, last: datetime | None) -> str:
    """The time between two moments, or a dash; also where the later one is still that of the try before."""
    return f"{(last - first).total_seconds():.1f}" if first and last and first <= last else NOTHING


def table(rows: Iterable[Row]) -> Table:
    """The table that ends the demo."""
    result = Table(title="Every task, and where it ran", title_justify="left", header_style="bold")
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
