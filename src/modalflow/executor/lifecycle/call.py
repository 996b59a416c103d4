"""Which function call stands for which workload, and what to do about it. Pure: no I/O, no clock, no Modal.

The table of calls is the engine's whole memory. What becomes of a call that has been silent is decided by ``decide``
from two facts alone, the ledger's entry and Modal's verdict, so that every combination can be read off one table.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from modalflow.protocol.messages import Entry, Kind, State, Submission
from modalflow.reasons import Cause, explain


@dataclass(frozen=True)
class Verdict:
    """Modal's own word on a function call."""

    ended: bool
    reason: str = ""
    """How it ended, in Modal's words; empty where it has not, where it returned in order, and where there are none."""
    cause: Cause = Cause.NO_OUTCOME


PENDING = Verdict(ended=False)
RETURNED = Verdict(ended=True)


#: The most sweep intervals that pass between two looks at a silent call.
LONGEST_PATIENCE = 8


#: Mishaps after which a call is failed. The SDK is known to raise bare AttributeErrors when a connection breaks, which
#: pass: so many are a minute of attempts to submit.
MOST_MISHAPS = 8


class Action(Enum):
    """What the engine does next about a call."""

    WAIT = auto()
    DELIVER = auto()
    """The ledger has the outcome."""
    SUBMIT_AGAIN = auto()
    """No container has begun it: same work id, so that a late start of the first call finds the claim taken."""
    RUN_AGAIN = auto()
    """It had begun, and its policy is to be run again: under a new work id."""
    FAIL = auto()
    ASK_AIRFLOW = auto()
    """Another scheduler ordered it, and no container has begun it: whether it is still wanted, and what the order was,
    Airflow's database knows."""
    TIME_OUT = auto()
    """It ran for too long: cancel it, then treat it as lost."""


@dataclass(frozen=True)
class Decision:
    """An action and, where something went wrong, why."""

    action: Action
    reason: str = ""
    cause: Cause = Cause.OTHER


@dataclass(slots=True)
class Call:
    """One submission of a workload, from the mailbox to its outcome."""

    key: Hashable
    work_id: str
    log_path: str
    label: str
    kind: Kind
    heard_at: float
    """When something was last heard of it, by the engine's monotonic clock."""
    submission: Submission | None = None
    """None for adopted work, until it must be submitted again: its scheduler took the order along."""
    options: Hashable = None
    most_attempts: int | None = None
    """How often it may be submitted, where the task says so."""
    function_call_id: str | None = None
    origin: str = ""
    """The work id it was ordered under; another one follows where it is run again."""
    attempts: int = 0
    looks: int = 0
    """How often it was looked up since it was submitted."""
    spawned_unseen: bool = False
    """A spawn failed in a way that does not tell whether Modal took it, so a second function call may exist."""
    partition: str = ""
    """Where its events arrive, if that is another executor's partition."""
    asking: bool = False
    """Airflow's database is being asked about it."""
    begun_unseen: bool = False
    """Airflow has it as running, and the ledger has nothing of it."""
    unbegun: int = 0
    """How often a container had it, and could not begin because Airflow's API did not answer."""
    spent: str = ""
    """The last function call that ended so: what is still heard of it is old."""
    settled: bool = False
    """An outcome was delivered; what arrives later is dropped."""
    taken_at: float = 0.0
    """Seconds since the epoch: when the executor took it from Airflow, or from another scheduler."""
    notes: int = 0
    """How often a user was told that it waits."""
    mishaps: int = 0
    """How often in a row asking Modal about it, or for it, went wrong in an unforeseen way."""
    container_id: str = ""
    """Where it runs, once a look has found that it does."""
    due_at: float = math.inf
    """When it will have run for too long, by the engine's monotonic clock."""

    def __post_init__(self) -> None:
        self.origin = self.origin or self.work_id

    @property
    def may_start_again(self) -> bool:
        """Whether another function call for this work id may still be waiting on Modal."""
        return self.attempts > 1 or self.spawned_unseen


@dataclass(frozen=True)
class Policy:
    """What the settings say about work that is in trouble."""

    task_timeout: float
    submit_attempts: int
    retry_commands: bool
    has_database: bool = False
    """Whether Airflow's database can be asked how it stands to a work id."""


def decide(call: Call, entry: Entry | None, verdict: Verdict, policy: Policy, wall_clock: float) -> Decision:
    """Decide about a call from what the ledger and Modal say of it.

    The ledger must have been read after the verdict was given: a worker writes its entry before its call returns.

    =============  ==========  =====================================
    ledger         Modal       decision
    =============  ==========  =====================================
    terminal       any         deliver
    running        pending     wait, or time out
    running        ended       lost after its claim
    nothing        pending     wait (no container has begun it)
    nothing        ended       lost before its claim
    nothing        not asked   adopted without a function call id: ask Airflow
    =============  ==========  =====================================
    """
    if entry is not None and entry.state is not State.RUNNING:
        return Decision(Action.DELIVER)
    function_call = call.function_call_id or ""
    if entry is not None:
        ran = wall_clock - entry.started_at
        where = {"container": entry.container_id, "call": entry.function_call_id or function_call}
        if ran > policy.task_timeout:
            said = f"it ran for {ran:.0f} s, task_timeout = {policy.task_timeout:g} s"
            return Decision(Action.TIME_OUT, explain(Cause.TASK_TIMEOUT, said=said, **where), Cause.TASK_TIMEOUT)
        if not verdict.ended:
            return Decision(Action.WAIT)
        return lost_after_claim(call, explain(verdict.cause, said=verdict.reason, **where), policy, verdict.cause)
    if call.submission is None and call.function_call_id is None:
        why = "Not started on Modal: its scheduler died before it had noted a function call."
        return Decision(Action.ASK_AIRFLOW, why)
    if not verdict.ended:
        return Decision(Action.WAIT)
    return lost_before_claim(call, verdict.cause, verdict.reason, policy)


def lost_before_claim(call: Call, cause: Cause, said: str, policy: Policy, *, advice: str | None = None) -> Decision:
    """Nothing ran, so submitting again is safe and costs the task no retry."""
    again = call.submission is not None and call.attempts < (call.most_attempts or policy.submit_attempts)
    times = f" in {call.attempts} submissions" if call.attempts > 1 and not again else ""
    # Whose result Modal no longer keeps may well have run, long ago.
    before = "" if cause is Cause.OUTPUT_EXPIRED else f"Not started on Modal{times}"
    reason = explain(cause, said=said, call=call.function_call_id or "", before=before, advice=advice)
    # A function call that returned had an entry: another executor that has the same work (Airflow took one's scheduler
    # for dead) has made use of it, and Airflow knows the outcome.
    used = cause is Cause.NO_OUTCOME and call.kind is Kind.WORKLOAD and policy.has_database
    if call.submission is None or used:
        return Decision(Action.ASK_AIRFLOW, reason, cause)
    return Decision(Action.SUBMIT_AGAIN if again else Action.FAIL, reason, cause)


def lost_after_claim(call: Call, reason: str, policy: Policy, cause: Cause = Cause.OTHER) -> Decision:
    """It may have had effects: a workload of Airflow's follows the task's retries, a raw command the setting."""
    if call.kind is Kind.COMMAND and policy.retry_commands and call.submission is not None:
        return Decision(Action.RUN_AGAIN, reason, cause)
    return Decision(Action.FAIL, reason, cause)


@dataclass
class Calls:
    """The calls in flight, by work id; at most one of them is current for a workload key."""

    _by_work_id: dict[str, Call] = field(default_factory=dict)
    _current: dict[Hashable, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_work_id)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._by_work_id.values()))

    def add(self, call: Call) -> None:
        """Track a call; it becomes the current one for its key, and an older one's outcome no longer counts."""
        self._by_work_id[call.work_id] = call
        self._current[call.key] = call.work_id

    def get(self, work_id: str) -> Call | None:
        return self._by_work_id.get(work_id)

    def of_key(self, key: Hashable) -> Call | None:
        """The current call of a workload key."""
        return self._by_work_id.get(self._current.get(key, ""))

    def is_current(self, call: Call) -> bool:
        """Whether an outcome of this call still stands for its key: deferral and reschedule reuse keys."""
        return self._current.get(call.key) == call.work_id

    def discard(self, call: Call) -> None:
        self._by_work_id.pop(call.work_id, None)
        if self.is_current(call):
            del self._current[call.key]

    def silent(self, now: float, interval: float) -> Iterable[Call]:
        """Calls to look up: of which nothing was heard for ``interval`` seconds, for longer after each look in vain.

        A long task is expected to be silent, and looking costs two RPCs.
        """
        return [
            call
            for call in self._by_work_id.values()
            if now - call.heard_at >= interval * min(2**call.looks, LONGEST_PATIENCE) or now >= call.due_at
        ]
