"""The life of one submission: its phases, and the transitions between them.

Pure: no I/O, no clock, no Modal. Only this module assigns the fields of a call. All other modules call the transitions,
and TRANSITIONS permits or refuses them. ``decision`` has the next step for a silent call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from modalflow.executor.mailbox import Adoption, SubmitRequest, WorkloadKey
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Entry, Kind, Submission

#: Unexpected errors in a row after which a call fails. The SDK sometimes raises a bare AttributeError when a connection
#: breaks, and recovers: this many errors take a minute of attempts to submit.
MAX_ERRORS: Final = 8


class Phase(Enum):
    """Where a call is in its life."""

    UNPLACED = auto()
    """Accepted from Airflow; the Function that runs it is not chosen yet."""
    QUEUED = auto()
    """Placed on a Function; waits for its turn, or for the end of a pause, to be submitted."""
    SPAWNING = auto()
    """Being submitted to Modal, which has not answered yet."""
    WAITING = auto()
    """Modal has accepted it as a function call; no container is known to have claimed it."""
    RUNNING = auto()
    """A container has claimed it in the ledger."""
    ADOPTED = auto()
    """Taken over from another scheduler without a function call id; its state is not known yet."""
    CHECKING = auto()
    """Airflow's database is asked whether the task is still wanted; the answer decides how it goes on."""
    EXPLAINING = auto()
    """A worker reported a cancellation; before the outcome is reported, Modal is asked for its origin."""
    RETRYING = auto()
    """A container could not begin it; it is submitted again once the pause is over and its claim is removed."""
    SETTLED = auto()
    """Its outcome is reported, or Airflow no longer wants it; whatever arrives later is dropped."""


def _to(target: Phase, *sources: Phase) -> dict[Phase, Phase]:
    return dict.fromkeys(sources, target)


def _stays(*phases: Phase) -> dict[Phase, Phase]:
    return {phase: phase for phase in phases}


_P = Phase
_ALL = tuple(Phase)
_IN_FLIGHT = tuple(phase for phase in Phase if phase is not Phase.SETTLED)
_UNCLAIMED = (_P.UNPLACED, _P.QUEUED, _P.SPAWNING, _P.WAITING, _P.ADOPTED)

#: Event → phase before → phase after; anything else raises TransitionError. A spawn whose answer was lost may run all
#: the same. So a claim or an outcome can arrive in any phase, and the answer to a spawn can arrive after either.
TRANSITIONS: Final[Mapping[str, Mapping[Phase, Phase]]] = {
    "requested": _to(_P.UNPLACED, _P.CHECKING, _P.RETRYING),
    "placed": _to(_P.QUEUED, _P.UNPLACED),
    "spawning": _to(_P.SPAWNING, _P.QUEUED),
    "submitted": _stays(*_ALL) | _to(_P.WAITING, _P.SPAWNING, _P.QUEUED),
    "postponed": _stays(*_ALL) | _to(_P.QUEUED, _P.SPAWNING),
    "claimed": _stays(_P.RUNNING, _P.EXPLAINING, _P.RETRYING) | _to(_P.RUNNING, *_UNCLAIMED, _P.CHECKING),
    "lost": _to(_P.QUEUED, _P.SPAWNING, _P.WAITING, _P.RUNNING, _P.CHECKING),
    "checking": _to(_P.CHECKING, *_UNCLAIMED, _P.RUNNING),
    "still_adopted": _to(_P.ADOPTED, _P.CHECKING),
    "still_submitted": _to(_P.WAITING, _P.CHECKING),
    "start_again": _to(_P.RETRYING, _P.CHECKING),
    "recalled": _to(_P.RETRYING, _P.WAITING),
    "claim_removed": _to(_P.QUEUED, _P.RETRYING),
    "claimed_elsewhere": _to(_P.WAITING, _P.RETRYING),
    "explaining": _to(_P.EXPLAINING, *_UNCLAIMED, _P.RUNNING, _P.CHECKING),
    "interrupted": _stays(*_IN_FLIGHT) | _to(_P.QUEUED, _P.SPAWNING) | _to(_P.WAITING, _P.EXPLAINING, _P.RETRYING),
    "settle": _to(_P.SETTLED, *_IN_FLIGHT),
}


_NO_RESOURCES: Final = Resources()


class TransitionError(RuntimeError):
    """An event that a call's phase does not permit: a fault of modalflow's own."""


@dataclass(slots=True)
class Call:
    """One submission of a workload, from the executor's mailbox to its outcome."""

    key: WorkloadKey
    work_id: str
    log_path: str
    label: str
    kind: Kind
    accepted_at: float
    """When this executor took it from Airflow or from another scheduler, in seconds since the epoch."""
    updated_at: float
    """When something was last learnt of it, by the engine's monotonic clock."""
    phase: Phase
    request: SubmitRequest | None = None
    """What Airflow asked for, while it is UNPLACED."""
    submission: Submission | None = None
    """What is sent to Modal; None until it is placed."""
    resources: Resources = _NO_RESOURCES
    """What the task asks for beyond its profile."""
    max_attempts: int | None = None
    """How often it may be submitted, if the task says so."""
    function_call_id: str | None = None
    origin: str = ""
    """The work id that Airflow knows it by; it gets another one if it is run again."""
    attempts: int = 0
    """How often it was submitted."""
    spawned_at: float = 0.0
    """When it was sent to Modal, in seconds since the epoch; 0 while it is queued, or if another executor sent it."""
    checks: int = 0
    """How often it was looked up since it was last submitted."""
    spawn_unconfirmed: bool = False
    """Whether a spawn failed without saying if Modal accepted it: a second function call may exist."""
    submitted_elsewhere: bool = False
    """Whether another scheduler submitted it."""
    adopted_profile: str = ""
    """The profile of work without a submission here, if that is known."""
    partition: str = ""
    """The partition of another executor on which its events arrive; empty if they arrive here."""
    container_id: str = ""
    """Where it runs, once the ledger has shown that."""
    started_at: float = 0.0
    """When that container claimed it, in seconds since the epoch; 0 if it is not known to run."""
    due_at: float = math.inf
    """When it will have run for longer than it may, by the engine's monotonic clock."""
    running_unseen: bool = False
    """Whether Airflow shows it as running while the ledger has nothing of it."""
    start_retries: int = 0
    """How often a container had it and could not begin because Airflow's API did not answer."""
    retired_call_id: str = ""
    """The last function call that ended so; whatever still arrives of it is out of date."""
    wait_reports: int = 0
    """How often its user was informed that it waits."""
    errors: int = 0
    """How many unexpected errors in a row there were in dealing with it."""

    def __post_init__(self) -> None:
        self.origin = self.origin or self.work_id

    @classmethod
    def accepted(cls, request: SubmitRequest, now: float) -> Call:
        """Return the call for a request of Airflow's."""
        draft = request.draft
        return cls(
            request.key,
            draft.work_id,
            draft.log_path,
            draft.label,
            draft.kind,
            accepted_at=request.made_at,
            updated_at=now,
            phase=Phase.UNPLACED,
            request=request,
        )

    @classmethod
    def adopted(cls, adoption: Adoption, wall_clock: float, profile: str = "") -> Call:
        """Return the call for work that another scheduler submitted; it is due to be looked up at once."""
        return cls(
            adoption.key,
            adoption.work_id,
            adoption.log_path,
            adoption.label,
            Kind.WORKLOAD,
            accepted_at=wall_clock,
            updated_at=0.0,
            phase=Phase.WAITING if adoption.function_call_id else Phase.ADOPTED,
            function_call_id=adoption.function_call_id,
            submitted_elsewhere=True,
            adopted_profile=profile,
        )

    def successor(self, work_id: str, now: float, wall_clock: float) -> Call:
        """Return the call that runs the same work again under another work id."""
        assert self.submission is not None, "only what was submitted runs again"
        return Call(
            self.key,
            work_id,
            self.log_path,
            self.label,
            self.kind,
            accepted_at=wall_clock,
            updated_at=now,
            phase=Phase.QUEUED,
            submission=replace(self.submission, work_id=work_id, submitted_at=wall_clock),
            resources=self.resources,
            max_attempts=self.max_attempts,
            origin=self.origin,
        )

    @property
    def settled(self) -> bool:
        """Whether its outcome is reported, or no longer wanted."""
        return self.phase is Phase.SETTLED

    @property
    def profile(self) -> str:
        """Its profile; empty if that is not known, or not yet."""
        return self.submission.profile if self.submission is not None else self.adopted_profile

    @property
    def has_request(self) -> bool:
        """Whether it can be submitted: adopted work cannot until Airflow's database has given its request again."""
        return self.request is not None or self.submission is not None

    @property
    def may_start_again(self) -> bool:
        """Whether another function call for this work id may still be waiting on Modal."""
        return self.attempts > 1 or self.spawn_unconfirmed

    @property
    def may_begin(self) -> bool:
        """Whether Modal may know of it, so that a container may begin it."""
        return self.attempts > 0 or self.spawn_unconfirmed or self.submitted_elsewhere

    @property
    def is_deciding(self) -> bool:
        """Whether something under way will decide how it goes on, so that nothing else may."""
        return self.phase in (Phase.CHECKING, Phase.EXPLAINING, Phase.RETRYING)

    # Transitions: each event of the table is a method.

    def _move(self, event: str) -> Phase:
        """Enter the phase that follows on an event, and return it."""
        after = TRANSITIONS[event].get(self.phase)
        if after is None:
            raise TransitionError(f"{self.label} is {self.phase.name}, which does not permit {event!r}")
        if after is not Phase.UNPLACED:
            self.request = None
        self.phase = after
        return after

    def requested(self, request: SubmitRequest, now: float) -> None:
        """Start over with a request that was made again. If the work was submitted before, it may still begin there."""
        self._move("requested")
        self.request, self.spawn_unconfirmed = request, self.may_begin
        self._unsubmitted(now)

    def placed(self, submission: Submission, resources: Resources) -> None:
        """Record the Function that runs it, within the complete submission."""
        max_attempts = self.request.submit_attempts if self.request is not None else None
        self._move("placed")
        self.submission, self.resources, self.max_attempts = submission, resources, max_attempts

    def spawning(self, wall_clock: float = 0.0) -> None:
        """Record that Modal is being asked to run it. ``wall_clock`` is in seconds since the epoch."""
        self._move("spawning")
        self.attempts += 1
        self.spawned_at = wall_clock

    def submitted(self, function_call_id: str, now: float) -> None:
        """Record that Modal accepted it, unless a container has claimed another function call of it meanwhile."""
        before = self.phase
        if self._move("submitted") in (Phase.WAITING, Phase.SETTLED):
            self.function_call_id = function_call_id
        self.errors, self.updated_at = 0, now
        if before not in (Phase.SPAWNING, Phase.SETTLED):
            self.spawn_unconfirmed = True

    def postponed(self, *, unexpected: bool = False) -> None:
        """Record that Modal did not accept it this time, without using an attempt unless the error was unexpected."""
        self._move("postponed")
        self.spawned_at = 0.0
        # Even a rate limit leaves this open: the SDK may have tried more than once, and lost the first answer.
        self.spawn_unconfirmed = True
        if unexpected:
            self.errors += 1
        else:
            self.attempts -= 1

    def claimed(self, entry: Entry, now: float, due_at: float, partition: str) -> None:
        """Record its container, and the partition for the report of its end."""
        if self._move("claimed") is Phase.RUNNING:
            self.function_call_id = entry.function_call_id or self.function_call_id
            self.container_id, self.due_at, self.partition = entry.container_id, due_at, partition
            self.started_at = entry.started_at
        self.updated_at = now

    def lost(self, now: float) -> None:
        """Queue it to be submitted once more under the same work id: no container has begun it."""
        self._move("lost")
        self._unsubmitted(now)

    def checking(self) -> None:
        """Record that Airflow's database is asked about it."""
        self._move("checking")

    def unanswered(self) -> None:
        """Go back to where it was before Airflow's database was asked: the answer decides nothing."""
        if self.function_call_id:
            self.still_submitted()
        else:
            self.still_adopted()

    def still_submitted(self) -> None:
        """Wait for its function call as before."""
        self._move("still_submitted")

    def still_adopted(self) -> None:
        """Remain without a function call, to be looked up again."""
        self._move("still_adopted")

    def airflow_runs_it(self) -> None:
        """As ``unanswered``, but Airflow shows it as running: it was claimed, perhaps since the ledger was read."""
        self.unanswered()
        self.running_unseen, self.checks = True, 0

    def start_again(self, entry: Entry, retry_at: float) -> None:
        """Retire the function call that could not begin it; the work is submitted again later."""
        self._move("start_again")
        self.start_retries += 1
        self.retired_call_id = entry.function_call_id
        self._unsubmitted(retry_at)

    def recalled(self, now: float) -> None:
        """Retire the function call that no container has begun; the work is submitted again later."""
        self._move("recalled")
        self.retired_call_id = self.function_call_id or ""
        self._unsubmitted(now)

    def claim_removed(self) -> None:
        """Queue it again after ``start_again`` or ``recalled``: the ledger is free for another claim."""
        self._move("claim_removed")
        # The retired function call has ended in order, so it is none that may still begin.
        self.attempts = max(self.attempts - 1, 0)

    def claimed_elsewhere(self, entry: Entry, now: float) -> None:
        """Follow the claim that has taken the retired one's place: another executor submitted the same work, or the
        function call could not be recalled."""
        self._move("claimed_elsewhere")
        if entry.function_call_id == self.retired_call_id:
            # It could not be recalled, so its end counts.
            self.retired_call_id = ""
        self.function_call_id, self.updated_at = entry.function_call_id, now

    def explaining(self, entry: Entry) -> None:
        """Record the question to Modal about the origin of its end."""
        self._move("explaining")
        self.function_call_id = self.function_call_id or entry.function_call_id

    def interrupted(self) -> None:
        """Record that the engine's thread ended in the middle of whatever it did with this call."""
        before = self.phase
        self._move("interrupted")
        if before is Phase.SPAWNING:
            self.spawn_unconfirmed = True
        elif before is Phase.RETRYING:
            # The next look-up finds its entry again.
            self.function_call_id, self.retired_call_id = self.retired_call_id, ""

    def settle(self, function_call_id: str = "") -> None:
        """End it: whatever arrives of it from now on is dropped."""
        self._move("settle")
        self.function_call_id = self.function_call_id or function_call_id or None

    def _unsubmitted(self, now: float) -> None:
        self.function_call_id, self.container_id, self.partition, self.spawned_at = None, "", "", 0.0
        self.checks, self.due_at, self.updated_at, self.started_at = 0, math.inf, now, 0.0

    # What changes within a phase.

    def touch(self, now: float) -> None:
        """Record that something was learnt of it."""
        self.updated_at = now

    def looked_up(self, now: float) -> None:
        """Record that Modal and the ledger have answered about it."""
        self.updated_at, self.errors = now, 0
        self.checks += 1

    def failed_unexpectedly(self) -> None:
        """Count an error that nothing foresees."""
        self.errors += 1

    def claimed_by(self, function_call_id: str) -> None:
        """Follow the claiming function call: of several for one work id, it counts."""
        self.function_call_id = function_call_id

    def wait_reported(self) -> None:
        """Count a report to its user that it waits."""
        self.wait_reports += 1
