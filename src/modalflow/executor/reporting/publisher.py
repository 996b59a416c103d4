"""The executor tells of itself: what is in flight, since when, and what went wrong last, for `modalflow status`.

One Dict entry per executor, written when something has changed: at most one RPC per interval, however many run. Nothing
here is needed for a workload to run; whatever goes wrong here is waited out.
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
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workloads import task_try_of
from modalflow.protocol.snapshot import LISTED_CALLS, SIGN_OF_LIFE, SUBMITTED, WAITING, InFlight, Snapshot
from modalflow.support.described import describe
from modalflow.support.text import one_line

log = logger(__name__)

#: Seconds after which the snapshot of an executor that was killed is removed by the next one that starts.
FORGOTTEN_AFTER = 24 * 3600

#: Characters of what is in an executor's way.
_TROUBLE = 500

#: Seconds that a clean stop waits for its snapshot to be removed.
WITHDRAW_TIMEOUT = 3.0


@dataclass(frozen=True)
class Identity:
    """Which executor this is."""

    job_id: str = ""
    team: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What another machine may compare with its own settings."""
    installation: str = ""
    """What is wrong with the modalflow that this process imports; empty if nothing is."""


class Publisher:
    """Keeps one executor's snapshot up to date."""

    def __init__(self, tracker: Tracker, identity: Identity, interval: float) -> None:
        self._tracker = tracker
        self._identity = identity
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
                    log.info("The report on work in flight could not be published: %s", describe(error))
                await asyncio.sleep(self._interval)

    async def publish(self) -> None:
        """Write a snapshot, unless the one that was written last still says it all."""
        now = time.time()
        new = self._snapshot(now)
        old = self._last
        fresh = old is not None and now - old.published_at < SIGN_OF_LIFE
        if old is not None and fresh and dataclasses.replace(old, published_at=now) == new:
            return
        remote = self._tracker.link.made()
        await remote.publish(new.partition, new.to_json())
        self._last = new
        if old is None:
            await remote.withdraw_older_than(now - FORGOTTEN_AFTER)

    async def withdraw(self) -> None:
        """Remove the snapshot: this executor has stopped."""
        remote = self._tracker.link.remote
        if remote is None or self._last is None:
            return
        try:
            async with asyncio.timeout(WITHDRAW_TIMEOUT):
                await remote.withdraw(self._tracker.partition)
        except FAILURES as error:
            log.info("The snapshot stays behind: %s", describe(error))

    def _snapshot(self, now: float) -> Snapshot:
        calls = list(self._tracker.calls)
        return Snapshot(
            partition=self._tracker.partition,
            host=socket.gethostname(),
            pid=os.getpid(),
            job_id=self._identity.job_id,
            team=self._identity.team,
            version=__version__,
            started_at=self._started_at,
            published_at=now,
            interval=self._interval,
            states=dict(Counter(_state(call) for call in calls)),
            counts=dict(self._tracker.counts),
            obstacle=one_line(self._tracker.trouble, _TROUBLE),
            trouble=self._trouble.text,
            trouble_at=self._trouble.at,
            installation=self._identity.installation,
            settings=self._identity.settings,
            calls=tuple(_in_flight(call) for call in calls[:LISTED_CALLS]),
            more=max(0, len(calls) - LISTED_CALLS),
        )


def _state(call: Call) -> str:
    return SUBMITTED if call.function_call_id else WAITING


def _in_flight(call: Call) -> InFlight:
    return InFlight(
        work_id=call.work_id,
        label=call.label,
        state=_state(call),
        since=round(call.accepted_at, 1),
        function_call_id=call.function_call_id or "",
        profile=call.submission.profile if call.submission is not None else "",
        submissions=call.attempts,
        task=task_try_of(call.key),
    )


class LastTrouble(logging.Handler):
    """Remembers the last warning that the engine's thread logged.

    A log handler, so that whatever the executor says to its log about rate limits, networks or credentials is what
    `modalflow status` shows, without a second place to say it.
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
        if record.thread == self._thread:
            self.text = one_line(" ".join(record.getMessage().split()), _TROUBLE)
            self.at = round(record.created, 1)
