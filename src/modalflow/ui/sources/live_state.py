"""The state of all work at one moment, prepared for answers: the rows of the table are JSON texts already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from modalflow.names import TaskTry
from modalflow.operations.inventory import Inventory, Work
from modalflow.operations.profiles.listing import ProfileRow, profile_rows
from modalflow.protocol.spending_report import SpendingReport
from modalflow.ui.answers.work import COLUMNS, Cell

_PLACE = COLUMNS.index("executor")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table of work."""

    work: Work
    dag_id: str
    """Empty for work of no DAG, or of an unknown one: shown to users who may read all DAGs."""
    cells: Sequence[Cell]
    """In the order of ``answers.work.COLUMNS``."""
    text: str
    """Their JSON."""
    text_without_place: str
    """Their JSON without the executor, which names a host: for users who may not see the cluster."""
    folded: str
    """The cells' text for searches, without the executor."""


@dataclass(frozen=True)
class LiveState:
    """One read of the executors' reports, the ledger and the profiles."""

    inventory: Inventory
    reports: Sequence[SpendingReport] = ()
    """The executors' running costs."""
    local: bool = False
    """Whether the control plane is a local one, which has no pages to link to."""
    app: str = ""
    environment: str = ""
    rows: Sequence[Row] = field(default_factory=list)
    profiles: Sequence[ProfileRow] = ()
    """The deployed profiles, and paused ones that are not."""

    @classmethod
    def of(
        cls, inventory: Inventory, reports: Sequence[SpendingReport], *, local: bool, app: str, environment: str
    ) -> LiveState:
        """Return the state with its rows."""
        rows = [_row(work) for work in inventory.work()]
        return cls(inventory, reports, local, app, environment, rows, profile_rows(inventory))

    def of_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[Work]:
        """Return the work of one task instance."""
        wanted = dag_id, task_id, run_id, map_index
        return [row.work for row in self.rows if row.work.task is not None and row.work.task[:4] == wanted]

    def of_run(self, dag_id: str, run_id: str) -> list[Work]:
        """Return the work of one DAG run."""
        tasks = [(row.work, row.work.task) for row in self.rows if row.dag_id == dag_id]
        return [work for work, task in tasks if task is not None and task.run_id == run_id]

    def work_of_ids(self, work_ids: Sequence[str]) -> dict[str, Work]:
        """Return the work with these ids, as far as it is there."""
        wanted = set(work_ids)
        return {row.work.work_id: row.work for row in self.rows if row.work.work_id in wanted}


def _row(work: Work) -> Row:
    found = _cells(work)
    before, after = (json.dumps(part, separators=(",", ":"))[1:-1] for part in (found[:_PLACE], found[_PLACE + 1 :]))
    return Row(
        work,
        work.task.dag_id if work.task else "",
        found,
        f"[{before},{json.dumps(work.executor)},{after}]",
        f'[{before},"",{after}]',
        "\n".join(map(str, found[:_PLACE] + found[_PLACE + 1 :])).casefold(),
    )


def _cells(work: Work) -> list[Cell]:
    task = work.task or TaskTry("", "", "", -1, 0)
    return [
        work.work_id,
        work.label,
        work.state,
        work.since,
        work.profile,
        work.reason,
        task.dag_id,
        task.task_id,
        task.run_id,
        task.map_index,
        task.try_number,
        work.function_call_id,
        work.container_id,
        work.executor,
        work.submissions,
    ]
