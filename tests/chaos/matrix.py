"""The matrix of fault and moment, as data: what is injected, when, and what may come of it.

Pure: it names faults and moments, and holds no way to make either.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: What a fault can hit: moments in the life of a task, in the columns' order.
MOMENTS: Final[Mapping[str, str]] = {
    "before": "the DAG run exists, nothing is submitted",
    "waiting": "submitted, and waiting for a GPU that is taken",
    "claiming": "the claim is in the ledger, the worker has not heard so, nothing has started",
    "running": "the tasks run",
    "deferring": "Airflow has been told that the task is deferred or rescheduled, the ledger has not",
    "ending": "the outcome is in the ledger, its event is not sent",
    "delivering": "the event is sent, no scheduler has told Airflow",
}

#: ``=``: every task succeeds, and each of its phases is executed exactly once.
#: ``~``: a try may be lost: retried, or where no retry is left failed with a reason; none is executed twice.
#: ``+``: as ``~``, and a task that may run again uses no retry.
#: ``*``: as ``~``, and retries may run out while the fault lasts: where no worker is deployed, each try fails at once.
MATRIX: Final = """
                         before  waiting  claiming  running  deferring  ending  delivering
container_killed           .        .        +         +         +         =         =
container_frozen           .        .        =         =         =         =         =
container_preempted        .        .        +         +         +         =         =
host_gone                =        =        +         +         +         =         =
host_cut_off             .        .        +         +         +         =         =
killed_at_start            =        =        .         .         .         .         .
crash_at_start             =        =        .         .         .         .         .
zygote_killed              .        .        +         +         +         =         =
supervisor_killed          .        .        ~         ~         ~         =         =
task_killed                .        .        .         ~         .         .         .
plane_killed               =        =        +         +         +         =         =
plane_frozen               =        =        =         =         =         =         =
world_frozen               =        =        =         =         =         =         =
spawn_unavailable          =        .        .         .         =         .         .
spawn_answer_lost          =        .        .         .         =         .         .
spawn_connection_lost      =        .        .         .         =         .         .
spawn_exhausted            =        .        .         .         =         .         .
ledger_unavailable         =        =        =         =         =         =         =
ledger_answer_lost         =        =        =         =         =         =         =
ledger_slow                =        =        =         =         =         =         =
ledger_removed             .        =        ~         ~         ~         ~         ~
events_unavailable         .        .        .         =         =         =         =
events_doubled             .        .        .         =         =         .         .
events_lost                .        .        .         =         =         =         .
events_taken               .        .        .         =         =         =         =
events_cleared             .        .        .         .         .         =         =
volume_unavailable         =        =        .         =         =         .         .
volume_slow                .        .        .         =         =         .         .
verdicts_unavailable       =        =        .         =         .         =         .
everything_flaky           =        =        =         =         =         =         =
everything_slow            =        =        =         =         =         =         =
credentials_refused        =        =        =         =         =         =         =
clock_behind               =        =        .         =         .         .         .
clock_ahead                ~        ~        .         ~         .         ~         .
app_stopped                =        =        +         +         +         =         =
app_redeployed             =        =        =         =         =         =         =
relays_killed              =        =        =         =         =         =         =
relay_frozen               =        =         =         =         =         =         =
relay_items_lost           =        .        =         =         =         =         .
relay_items_doubled        =        .        =         =         =         =         .
relay_items_late           =        .        =         =         =         =         =
relay_key_rotated          =        =        =         =         =         =         .
scheduler_killed           =        =        =         =         =         =         =
schedulers_killed          =        =        =         =         =         =         =
scheduler_terminated       =        =        =         =         =         =         =
scheduler_frozen           =        =        =         =         =         =         =
api_server_killed          =        =        =         ~         =         =         =
triggerer_killed           .        .        .         .         =         .         .
postgres_restarted         ~        ~        ~         ~         ~         ~         ~
"""


@dataclass(frozen=True)
class Cell:
    """One fault at one moment."""

    fault: str
    moment: str
    may_lose: bool
    often: bool = False
    """Whether it may lose so many tries that retries run out."""
    costs_nothing: bool = False
    """Whether what it loses runs again without using a retry."""

    @property
    def name(self) -> str:
        """Its id in pytest, for ``-k``."""
        return f"{self.fault}-{self.moment}"

    @property
    def seed(self) -> int:
        """What its random choices come from: CHAOS_SEED and its name."""
        return seed_of(self.name)


def seed_of(name: str) -> int:
    """The seed of something random: CHAOS_SEED (0) and its name."""
    return zlib.crc32(f"{os.environ.get('CHAOS_SEED', '0')}/{name}".encode())


def read(matrix: str = MATRIX) -> Sequence[Cell]:
    """The cells of the table."""
    header, *rows = (line.split() for line in matrix.strip().splitlines())
    assert header == list(MOMENTS), f"the columns are {header}; expected {list(MOMENTS)}"
    cells = []
    for fault, *marks in rows:
        assert len(marks) == len(header), f"the row of {fault} has {len(marks)} cells; expected {len(header)}"
        assert set(marks) <= set("=~+*."), f"the row of {fault} has marks other than = ~ + * and ."
        cells += [
            Cell(fault, moment, mark != "=", mark == "*", mark == "+")
            for moment, mark in zip(header, marks, strict=True)
            if mark != "."
        ]
    return cells


CELLS: Final = read()

#: What ``make test`` runs.
SHORT: Final = frozenset(
    f"{fault}-{moment}"
    for fault, moments in {
        "container_killed": ("claiming", "running", "deferring"),
        "relays_killed": ("claiming", "running", "deferring"),
        "scheduler_killed": ("before", "waiting", "running", "ending", "delivering"),
    }.items()
    for moment in moments
)
