"""What passes between the scheduler's thread and the engine: requests one way, updates the other. Plain values."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from modalflow.executor.submission.resources import NO_OPTIONS, Resources
from modalflow.protocol.messages import Entry, Submission
from modalflow.reasons import Cause

#: What Airflow knows a workload by. Each kind of workload has a type of its own.
WorkloadKey: TypeAlias = Hashable


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """A workload to submit."""

    key: WorkloadKey
    draft: Submission
    """What is sent to Modal, without the profile, the partition and the granted resources: placement adds them."""
    resources: Resources
    """What the task asks for."""
    airflow_queue: str | None
    profile: str | None
    """The profile that the task asked for; if None, the Airflow queue decides."""
    submit_attempts: int | None = None
    """How often the task wants to be submitted; if None, the setting decides."""
    terms: Resources = NO_OPTIONS
    """How the task's size grows, and up to which limits (``submission.sizing``)."""
    made_at: float = field(default_factory=time.time, compare=False)
    """When the scheduler's thread posted it, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """Work of another scheduler to take over."""

    key: WorkloadKey
    work_id: str
    function_call_id: str | None
    log_path: str
    label: str
    resources: Resources = field(default_factory=Resources)
    """What the task asks for, as far as its options can be read."""
    airflow_queue: str | None = None
    profile: str | None = None
    """As in ``SubmitRequest``."""


class UpdateKind(Enum):
    """What happened to a workload."""

    STARTED = auto()
    """Modal has accepted it: it has a function call."""
    SUCCESS = auto()
    FAILED = auto()
    WAITING = auto()
    """It still waits, for the reason given. This is an entry in Airflow's event log, and no event of the executor."""
    OVER_BUDGET = auto()
    """A budget of it is used up. This, too, is an entry in Airflow's event log alone."""
    OVER = auto()
    """It has ended, and Airflow no longer wants to know."""


#: Final states that are not reported to Airflow. After the first three it queues the same key again, and would take the
#: outcome for the next run's. `running` means that someone else runs the task, whose outcome counts.
UNREPORTED_STATES = frozenset({"deferred", "up_for_reschedule", "awaiting_input", "running"})

#: The updates that end a workload with an outcome.
ENDS = frozenset({UpdateKind.SUCCESS, UpdateKind.FAILED})


@dataclass(frozen=True, slots=True)
class Update:
    """What the executor reports to Airflow at the next ``sync``."""

    kind: UpdateKind
    key: WorkloadKey
    origin: str
    """The work id of the request. Together with the key it identifies one of several submissions of the same key."""
    work_id: str
    function_call_id: str | None = None
    reason: str | None = None
    entry: Entry | None = None
    known_at: float = field(default_factory=time.monotonic, compare=False)
    """When the engine learnt of it, by the monotonic clock."""
    repeated: bool = False
    """Whether it was reported before, and Airflow did not act on it."""

    @property
    def is_for_airflow(self) -> bool:
        """Whether this end is reported to Airflow: not if the task comes back, or is no longer wanted."""
        if self.kind is UpdateKind.OVER:
            return False
        entry = self.entry
        return entry is None or (entry.final_state not in UNREPORTED_STATES and entry.cause != Cause.NOT_WANTED.value)


class Outbox:
    """The updates that the scheduler's thread has not fetched yet."""

    def __init__(self) -> None:
        self.updates: deque[Update] = deque()

    def __len__(self) -> int:
        return len(self.updates)

    def add(self, update: Update) -> None:
        """Report an update at one of the next heartbeats."""
        self.updates.append(update)

    def take(self, limit: int) -> Iterator[Update]:
        """Remove and yield the oldest updates, at most ``limit`` of them."""
        for _ in range(min(limit, len(self.updates))):
            yield self.updates.popleft()


class Inbox:
    """Function calls on their way from the scheduler's thread to the engine's loop.

    A thread of its own carries them: ``call_soon_threadsafe`` writes to a socket. That releases the interpreter lock,
    which a busy engine would keep for 5 ms at a time while the scheduler waits for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._letters: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._carrier = threading.Thread(target=self._carry, name="modalflow-mail", daemon=True)

    def start(self) -> None:
        """Begin to carry."""
        self._carrier.start()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function on the engine's loop, as soon as the loop runs. Never waits."""
        self._letters.put(partial(function, *args))

    def stop(self, seconds: float) -> None:
        """Stop carrying, and wait at most this long for the thread to end."""
        if self._carrier.is_alive():
            self._letters.put(None)
            self._carrier.join(seconds)

    def _carry(self) -> None:
        while (letter := self._letters.get()) is not None:
            # The loop is closed at the end only, which may be at this very moment.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(letter)
