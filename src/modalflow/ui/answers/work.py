"""The answer of ``GET /work``: a compact table, because it has up to 10,000 rows."""

from __future__ import annotations

from pydantic import BaseModel, Field

from modalflow.ui.answers.freshness import Freshness, Links

#: The columns, in their order in each row.
COLUMNS = (
    "work_id",
    "label",
    "state",  # running (claimed by a container), submitted (on Modal), waiting (kept by the executor)
    "since",  # its beginning; before that, the executor's receipt
    "profile",
    "reason",  # why it waits
    "dag_id",  # empty: no task instance, or recorded by modalflow 0.4
    "task_id",
    "run_id",
    "map_index",
    "try_number",
    "function_call_id",
    "container_id",
    "executor",  # host/pid; empty if its executor is gone, or if the user may not see the cluster
    "submissions",
)

#: The most rows of one answer.
MOST_ROWS = 10_000

Cell = str | float | int


class WorkTable(BaseModel):
    """Work without an outcome, of DAGs that the user may read: running work first, the oldest first in each state."""

    freshness: Freshness
    links: Links = Links()
    columns: list[str] = Field(default_factory=lambda: list(COLUMNS))
    rows: list[list[Cell]] = Field(default_factory=list)
    offset: int = 0
    matched: int = 0
    """Rows of all pages that match the filters."""
    total: int = 0
    """Rows without filters."""
    unlisted: int = 0
    """Calls in flight that the executors only count; shown to users who may read all DAGs."""
    states: dict[str, int] = Field(default_factory=dict)
    """State → rows, without the filter by state."""
    profiles: list[str] = Field(default_factory=list)
    """Values for the filters, of all rows."""
    dags: list[str] = Field(default_factory=list)
    cancellable: list[str] = Field(default_factory=list)
    """The DAGs among the rows whose work the user may cancel."""
