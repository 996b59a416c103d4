"""The executor's snapshot for `modalflow status`: what is in flight, since when, and what went wrong last.

One Dict entry for each executor, written if something has changed: at most one RPC per interval, however many calls are
in flight. No workload needs any of this, so a failure is logged, and the next interval tries again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from modalflow import __version__
from modalflow.executor.budgets.gate import BudgetGate
from modalflow.executor.connection import Connection
from modalflow.executor.holds.admission import Admission
from modalflow.executor.holds.profile_gate import ProfileGate
from modalflow.executor.home_publisher import HomePublisher
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.executor.workloads import task_try_of
from modalflow.protocol.snapshot import LISTED_CALLS, SIGN_OF_LIFE, SUBMITTED, WAITING, InFlight, Snapshot
from modalflow.support.described import describe
from modalflow.support.text import one_line

log = logger(__name__)

#: Seconds after which the snapshot of an executor that was killed is removed by the next one that starts.
REMOVED_AFTER = 24 * 3600

#: Characters of what keeps an executor from submitting.
_TROUBLE = 500

#: Budgets that are used up, in one snapshot.
_BUDGETS = 20

#: Seconds that a clean stop waits for its snapshot to be removed.
WITHDRAW_TIMEOUT = 3.0


@dataclass(frozen=True)
class Identity:
    """What identifies an executor to an operator."""

    job_id: str = ""
    team: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What another machine may compare with its own settings."""
    installation: str = ""
    """What is wrong with the modalflow that this process imports; empty if nothing is."""


class Publisher:
    """Keeps one executor's snapshot up to date."""

    def __init__(
        self,
        partition: str,
        identity: Identity,
        calls: Calls,
        connection: Connection,
        metrics: Metrics,
        homes: HomePublisher,
        gate: BudgetGate,
        profile_gate: ProfileGate,
        admission: Admission,
        interval: float,
    ) -> None:
        self._partition = partition
        self._identity = identity
        self._calls = calls
        self._connection = connection
        self._metrics = metrics
        self._homes = homes
        self._gate = gate
        self._profile_gate = profile_gate
        self._admission = admission
        self._interval = interval
        self._started_at = time.time()
        self._last: Snapshot | None = None
        self._trouble = LastTrouble()

    async def run(self) -> None:
        """Publish until cancelled."""
        if not self._interval:
            return await asyncio.Event().wait() and None
        with self._trouble.listening():
            while True:
                try:
                    await self.publish()
                except FAILURES as error:
                    log.info("The snapshot could not be published: %s", describe(error))
                await asyncio.sleep(self._interval)

    async def publish(self) -> None:
        """Write a snapshot, unless the last one is still true."""
        now = time.time()
        new = self._snapshot(now)
        old = self._last
        fresh = old is not None and now - old.published_at < SIGN_OF_LIFE
        if old is not None and fresh and dataclasses.replace(old, published_at=now) == new:
            return
        api = self._connection.get()
        await api.publish(new.partition, new.to_json())
        self._last = new
        if old is None:
            await api.withdraw_older_than(now - REMOVED_AFTER)

    async def withdraw(self) -> None:
        """Remove the snapshot: this executor has stopped."""
        api = self._connection.api
        if api is None or self._last is None:
            return
        try:
            async with asyncio.timeout(WITHDRAW_TIMEOUT):
                await api.withdraw(self._partition)
        except FAILURES as error:
            log.info("The snapshot stays behind: %s", describe(error))

    def _snapshot(self, now: float) -> Snapshot:
        calls = list(self._calls)
        return Snapshot(
            partition=self._partition,
            host=socket.gethostname(),
            pid=os.getpid(),
            job_id=self._identity.job_id,
            team=self._identity.team,
            version=__version__,
            started_at=self._started_at,
            published_at=now,
            interval=self._interval,
            states=dict(Counter(_state(call) for call in calls)),
            counts=dict(self._metrics.counts),
            obstacle=one_line(self._connection.obstacle, _TROUBLE),
            trouble=self._trouble.text,
            trouble_at=self._trouble.at,
            installation=self._identity.installation,
            settings=self._identity.settings,
            home=self._homes.id,
            budgets=tuple(one_line(text, _TROUBLE) for text in self._budgets()),
            held=len(self._admission),
            paused={name: hold.id for name, hold in self._profile_gate.holds.items()},
            held_by_profile=self._admission.by_profile(),
            on_modal=dict(Counter(call.profile for call in calls if _may_be_on_modal(call))),
            calls=tuple(_in_flight(call, self._admission) for call in calls[:LISTED_CALLS]),
            more=max(0, len(calls) - LISTED_CALLS),
        )

    def _budgets(self) -> list[str]:
        if self._gate.unknown:
            return [f"The budgets cannot be checked yet: {self._gate.unknown}"]
        used_up = self._gate.used_up[:_BUDGETS]
        return [f"{balance.budget.action}: {self._gate.reason(balance)}" for balance in used_up]


def _state(call: Call) -> str:
    return SUBMITTED if call.function_call_id else WAITING


def _may_be_on_modal(call: Call) -> bool:
    return bool(call.function_call_id) or call.phase is Phase.SPAWNING


def _in_flight(call: Call, admission: Admission) -> InFlight:
    return InFlight(
        work_id=call.work_id,
        label=call.label,
        state=_state(call),
        since=round(call.accepted_at, 1),
        function_call_id=call.function_call_id or "",
        profile=call.profile,
        submissions=call.attempts,
        task=task_try_of(call.key),
        reason=admission.short_reason(call),
        spawned_at=round(call.spawned_at, 1),
    )


class LastTrouble(logging.Handler):
    """Remembers the last warning that the engine's thread logged.

    A log handler, so that `modalflow status` shows what the executor logs about rate limits, networks and credentials
    without any further code.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self.at = 0.0
        self._thread = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to what the calling thread logs."""
        self._thread = threading.get_ident()
        logger = logging.getLogger("modalflow.executor")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a record of the engine's thread."""
        if record.thread == self._thread:
            self.text = one_line(" ".join(record.getMessage().split()), _TROUBLE)
            self.at = round(record.created, 1)
