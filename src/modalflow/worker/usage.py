"""What the function calls of this container occupy, written down: a record for each, and a line for its log.

The records are files of this container's own on the logs Volume, published with the logs. Nothing here may fail the
work: what cannot be recorded is logged in the container, and that is all.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from modalflow.cost.footer import footer
from modalflow.cost.meter import Meter, Share
from modalflow.cost.rates import DATED
from modalflow.cost.usage import LOST, Record, Reserved
from modalflow.names import USAGE_FOLDER, TaskTry
from modalflow.protocol.messages import Entry, Submission
from modalflow.worker.zygote.protocol import Outcome, Used

log = logging.getLogger(__name__)

#: Tells what the container was asked for, by the names of Modal's options.
Granted: TypeAlias = Callable[[Submission], Mapping[str, Any]]

#: Bytes after which a new file is begun. A commit uploads a changed file's last block anew, so that one file for all
#: of a busy day would be uploaded thousands of times.
FILE_SIZE = 64 * 1024

_TASK_LOG = re.compile(
    r"dag_id=(?P<dag_id>.+)/run_id=(?P<run_id>.+)/task_id=(?P<task_id>.+?)(/map_index=(?P<map_index>\d+))?"
    r"/attempt=(?P<try_number>\d+)\.log"
)


class Accounts:
    """The accounts of one container."""

    def __init__(
        self, root: Path, container_id: str, *, age: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``age``: for how many seconds the container has been there."""
        self.container_id = container_id
        self.clock = clock
        self.meter = Meter(clock() - age)
        self._folder = root / USAGE_FOLDER
        self._file: Path | None = None
        self._files = 0
        self._cpu_told = 0.0

    def open(self, function_call_id: str) -> Account:
        """A function call has arrived."""
        return Account(self, function_call_id)

    def write(self, record: Record) -> None:
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        file, self._file = self._file, None  # After a failure, which may have left half a line, another one is begun.
        if file is None or file.parent.name != day or file.stat().st_size >= FILE_SIZE:
            self._files += 1
            file = self._folder / day / f"{self.container_id}-{self._files:04}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as opened:
            opened.write(record.to_line())
        self._file = file

    def cpu_since_last(self) -> float:
        """What this process has used since it was last asked."""
        used = time.process_time() - self._cpu_told
        self._cpu_told += used
        return used


@dataclass
class Account:
    """The account of one function call: opened when it arrives, closed when its work is over."""

    accounts: Accounts
    function_call_id: str
    used: Used | None = None
    """What its processes used, once that is known."""
    taken_at: float = field(default_factory=time.time)
    _taken: float = 0.0
    _is_open: bool = True

    def __post_init__(self) -> None:
        self._taken = self.accounts.clock()
        self.accounts.meter.begin(id(self), self._taken)

    def close(self, submission: Submission, outcome: Outcome | None, granted: Granted) -> str:
        """Record what the call occupied; return the line that tells it, empty where that is impossible."""
        try:
            share, took = self._end()
            told = (outcome.final_state or outcome.state.value) if outcome is not None else "failed"
            record = _record(submission, granted, self, told, share, took)
            self.accounts.write(record)
            return footer(record, DATED)
        except Exception:  # The border of the accounts: see the module's docstring.
            log.exception("What %s occupied could not be recorded", submission.label)
            return ""

    def lost(self, submission: Submission, found: Entry, granted: Granted) -> str:
        """Record what a container that is gone had of this work; return the line that tells it."""
        try:
            self.drop()
            seconds = max(0.0, self.taken_at - found.started_at)
            record = Record(
                function_call_id=found.function_call_id,
                container_id=found.container_id,
                taken_at=found.started_at,
                outcome=LOST,
                queued=max(0.0, found.started_at - submission.submitted_at) if submission.submitted_at else 0.0,
                running=seconds,
                occupied=seconds,
                **_what(submission, granted),
            )
            self.accounts.write(record)
            return footer(record, DATED)
        except Exception:  # The border of the accounts: see the module's docstring.
            log.exception("What %s occupied could not be recorded", submission.label)
            return ""

    def drop(self) -> None:
        """There was nothing to do, or the account is closed already."""
        if self._is_open:
            self._is_open = False
            self.accounts.meter.drop(id(self), self.accounts.clock())

    def _end(self) -> tuple[Share, float]:
        self._is_open = False
        now = self.accounts.clock()
        return self.accounts.meter.end(id(self), now), now - self._taken


def _record(
    submission: Submission, granted: Granted, account: Account, outcome: str, share: Share, took: float
) -> Record:
    waited = max(0.0, account.taken_at - submission.submitted_at) if submission.submitted_at else share.cold
    used = account.used
    running = min(used.seconds, took) if used is not None else took
    # A container that was there before there was this work did not start for it: it was idle until then.
    cold = min(share.cold, waited)
    return Record(
        function_call_id=account.function_call_id,
        container_id=account.accounts.container_id,
        taken_at=account.taken_at,
        outcome=outcome,
        queued=waited - cold,
        starting=cold + took - running,
        running=running,
        idle=share.idle + share.cold - cold,
        occupied=share.whole,
        cpu_seconds=(used.cpu_seconds if used is not None else 0.0) + account.accounts.cpu_since_last(),
        peak_mib=used.peak_mib if used is not None else 0.0,
        worker_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **_what(submission, granted),
    )


def _what(submission: Submission, granted: Granted) -> dict[str, Any]:
    return {
        "label": submission.label,
        "work_id": submission.work_id,
        "profile": submission.profile,
        "reserved": Reserved.read(granted(submission)),
        **_task_of(submission),
    }


def _task_of(submission: Submission) -> dict[str, Any]:
    """Return the fields of the try that a submission is of, if it is of one."""
    task = submission.task_try
    if task is None and submission.workload is None:
        # An executor of 0.4 names the task of a command in the path of its log alone.
        task = _task_of_log(submission.log_path)
    return task._asdict() if task is not None else {}


def _task_of_log(log_path: str) -> TaskTry | None:
    """Return the try whose log this is in Airflow's default layout; None for a path that can be read in two ways."""
    found = _TASK_LOG.fullmatch(log_path)
    if found is None or any(log_path.count(name) > 1 for name in ("/run_id=", "/task_id=", "/map_index=")):
        return None
    ids = found["dag_id"], found["task_id"], found["run_id"]
    return TaskTry(*ids, int(found["map_index"] or -1), int(found["try_number"]))


def age_of_this_process() -> float:
    """Seconds since this process started, which is the container's main one; 0 where that cannot be told."""
    try:
        stat = Path("/proc/self/stat").read_bytes()
        ticks = int(stat[stat.rindex(b")") + 2 :].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, age)
