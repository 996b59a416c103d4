"""The state of all work, from the executors' snapshots and the ledger. Only reads.

Three questions to Modal, however much runs: the executors' Dict, the ledger, and each profile's statistics.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import modal
from modal import exception

from modalflow.errors import MalformedMessageError, ModalflowError
from modalflow.logs.log_volume import LogVolume
from modalflow.names import CANCELLED_BY, DEFAULT_PROFILE, SHORTAGE, TaskTry
from modalflow.operations.site import PATIENCE, Site, not_deployed, within
from modalflow.protocol.messages import Deployment, Entry, State
from modalflow.protocol.profile_holds import HOLDS, ProfileHold, ProfileHolds
from modalflow.protocol.relay_report import RELAY, RelayReport
from modalflow.protocol.snapshot import SUBMITTED, WAITING, InFlight, Snapshot
from modalflow.support.described import describe

RUNNING = "running"

#: The states of work in their order on the page: the ones with costs first.
STATES = (RUNNING, SUBMITTED, WAITING)


@dataclass(frozen=True)
class Work:
    """One work id without an outcome."""

    work_id: str
    label: str
    state: str
    since: float
    """Seconds since the epoch: its beginning, or, before that, the executor's receipt."""
    profile: str = ""
    function_call_id: str = ""
    container_id: str = ""
    partition: str = ""
    executor: str = ""
    """The place of its executor; empty if that is gone."""
    submissions: int = 0
    task: TaskTry | None = None
    """The try of a task instance. None for other work, and for work named only by modalflow 0.4."""
    reason: str = ""
    """Why the executor keeps it from Modal, if it does."""
    submitted_at: float = 0.0
    """Seconds since the epoch: when the executor took it from Airflow, or from another scheduler."""
    spawned_at: float = 0.0
    """When the executor sent it to Modal; 0 if it has not, or if that is unknown."""
    container_started_at: float = 0.0
    """When its container started; 0 if no container has it, or if that is unknown."""


@dataclass(frozen=True)
class ProfileState:
    """Modal's figures for a profile's Function."""

    name: str
    containers: int = 0
    backlog: int = 0
    problem: str = ""
    hold: ProfileHold | None = None
    """Set if it is paused."""


@dataclass(frozen=True)
class Inventory:
    """The state at one moment."""

    read_at: float
    executors: Sequence[Snapshot]
    entries: Sequence[Entry]
    profiles: Sequence[ProfileState] = ()
    deployment: Deployment | None = None
    relays: Sequence[RelayReport] = ()
    holds: ProfileHolds = field(default_factory=ProfileHolds)
    """The paused profiles."""

    @property
    def living(self) -> list[Snapshot]:
        """The executors with a recent report."""
        return [snapshot for snapshot in self.executors if not snapshot.is_silent(self.read_at)]

    @property
    def silent(self) -> list[Snapshot]:
        """The executors without a recent report: killed, or cut off from Modal."""
        return [snapshot for snapshot in self.executors if snapshot.is_silent(self.read_at)]

    def work(self) -> list[Work]:
        """Return the work without an outcome: running work first, and the oldest first in each state."""
        by_id = {entry.work_id: entry for entry in self.entries}
        where = {snapshot.partition: f"{snapshot.host}/{snapshot.pid}" for snapshot in self.living}
        found = {}
        for snapshot in self.living:
            for call in snapshot.calls:
                entry = by_id.get(call.work_id)
                if entry is None:
                    found[call.work_id] = _work_of(call, snapshot, where)
                elif entry.state is State.RUNNING:
                    found[call.work_id] = _claimed(entry, where, call, snapshot)
        for entry in self.entries:
            if entry.state is State.RUNNING and entry.work_id not in found:
                found[entry.work_id] = _claimed(entry, where)
        return sorted(found.values(), key=lambda work: (STATES.index(work.state), work.since))

    @property
    def unlisted(self) -> int:
        """How many calls in flight the snapshots only count."""
        return sum(snapshot.more for snapshot in self.living)

    def totals(self) -> dict[str, Counter[str]]:
        """Profile → state → how many."""
        totals: dict[str, Counter[str]] = {}
        for work in self.work():
            totals.setdefault(work.profile, Counter())[work.state] += 1
        return totals


def _work_of(call: InFlight, snapshot: Snapshot, where: dict[str, str]) -> Work:
    return Work(
        work_id=call.work_id,
        label=call.label,
        state=call.state if call.state in STATES else SUBMITTED,
        since=call.since,
        profile=call.profile,
        function_call_id=call.function_call_id,
        partition=snapshot.partition,
        executor=where[snapshot.partition],
        submissions=call.submissions,
        task=call.task,
        reason=call.reason,
        submitted_at=call.since,
        spawned_at=call.spawned_at,
    )


def _claimed(
    entry: Entry, where: dict[str, str], call: InFlight | None = None, snapshot: Snapshot | None = None
) -> Work:
    partition = snapshot.partition if snapshot else entry.partition
    return Work(
        work_id=entry.work_id,
        label=entry.label or (call.label if call else ""),
        state=RUNNING,
        since=entry.started_at,
        profile=(call.profile if call else "") or entry.profile,
        function_call_id=entry.function_call_id,
        container_id=entry.container_id,
        partition=partition,
        executor=where.get(partition, ""),
        submissions=call.submissions if call else 0,
        task=entry.task or (call.task if call else None),
        # The entry has the times of the executor that submitted it, also after another one has adopted it.
        submitted_at=entry.submitted_at or (call.since if call else 0.0),
        spawned_at=entry.spawned_at or (call.spawned_at if call else 0.0),
        container_started_at=entry.container_started_at,
    )


def take_inventory(site: Site, *, profiles: bool = True) -> Inventory:
    """Read everything. Raises NotDeployedError without a worker app, or the SDK's error."""
    try:
        entries = list(_entries(_items(site, site.names.ledger)))
    except exception.NotFoundError as error:
        raise not_deployed(site, error) from error
    try:
        reports = _items(site, site.names.executors)
    except exception.NotFoundError:
        # No executor has ever reported.
        reports = []
    holds = ProfileHolds.from_json(next((text for key, text in reports if key == HOLDS), None))
    deployment, states, relays = None, [], list[RelayReport]()
    if profiles:
        relays = list(relays_of(site))
        deployment = _deployment(site)
        names = deployment.profiles if deployment else (DEFAULT_PROFILE,)
        states = [replace(_profile(site, name), hold=holds.by_profile.get(name)) for name in names]
    return Inventory(time.time(), list(_snapshots(reports)), entries, states, deployment, relays, holds)


def _items(site: Site, name: str) -> list[tuple[Any, Any]]:
    found: Any = modal.Dict.from_name(name, **site.scope)
    return within(PATIENCE, lambda: list(found.items()), lenient=True)


def _entries(items: Iterable[tuple[Any, Any]]) -> Iterable[Entry]:
    for key, text in items:
        if str(key).startswith((CANCELLED_BY, SHORTAGE)):
            continue
        try:
            yield Entry.from_json(text)
        except MalformedMessageError:
            # Another program wrote this entry. The executor reports it for its work.
            continue


def _snapshots(items: Iterable[tuple[Any, Any]]) -> Iterable[Snapshot]:
    for _, text in items:
        try:
            yield Snapshot.from_json(text)
        except MalformedMessageError:
            continue


def relays_of(site: Site) -> Iterable[RelayReport]:
    """Return the reports of relays. Raises the SDK's errors."""
    try:
        items = _items(site, site.names.relays)
    except exception.NotFoundError:
        # No relay has ever reported.
        return
    for key, text in sorted(items, key=str):
        if str(key).startswith(RELAY):
            try:
                yield RelayReport.from_json(text)
            except MalformedMessageError:
                continue


def _deployment(site: Site) -> Deployment | None:
    try:
        return within(PATIENCE, LogVolume(site.control_plane, site.names, create=False).deployment)
    except (MalformedMessageError, exception.Error):
        return None


def _profile(site: Site, name: str) -> ProfileState:
    function: Any = modal.Function.from_name(site.names.app, site.names.function(name), **site.scope)
    try:
        stats: Any = within(PATIENCE, function.get_current_stats)
    except (exception.Error, ModalflowError, TimeoutError) as error:
        return ProfileState(name, problem=describe(error))
    return ProfileState(name, stats.num_total_runners, stats.backlog)
