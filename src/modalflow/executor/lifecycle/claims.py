"""Claims in the ledger and function calls on Modal that must end: keeping, removing, barring and cancelling.

Every operation is tried until Modal has carried it out or there is no use in it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

from modal import exception

from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.modal_api.modal_api import FAILURES, ModalApi
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.protocol.messages import Entry, State
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds for which an operation is tried, and between two attempts.
INSISTENCE = 600.0
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

#: Claims that stay in the ledger because the work may begin a second time. The oldest are no longer remembered here;
#: Modal removes them after seven days.
KEPT_CLAIMS = 10_000

#: Attempts to remove an entry from the ledger, and seconds after the first of them, five times as long after each next.
REMOVE_ATTEMPTS = 3
REMOVE_PAUSE = 1.0

#: RPCs under way at once: for cancelling and barring, and for removing entries.
CONCURRENCY = 32
REMOVALS = 16


class Claims:
    """Prevents a second beginning of work, and ends unwanted work."""

    def __init__(self, partition: str, connection: Connection, rpcs: BoundedTasks, removals: BoundedTasks) -> None:
        self._partition = partition
        self._connection = connection
        self._rpcs = rpcs
        self._removals = removals
        self._kept: dict[str, None] = {}
        """Work ids whose entry stays, once, when it would be removed."""
        self._held: dict[str, bool] = {}
        """Work ids whose entry stays until it is released → whether it was to be removed meanwhile."""
        self._failed = DedupLogger(log)

    def keep(self, work_id: str) -> None:
        """Leave the entry of a work id in the ledger after its outcome was delivered."""
        self._kept[work_id] = None
        while len(self._kept) > KEPT_CLAIMS:
            del self._kept[next(iter(self._kept))]

    def hold(self, work_id: str) -> None:
        """Keep an entry until ``release``: its outcome may have to be reported again."""
        self._held[work_id] = False

    def release(self, work_id: str, *, remove: bool) -> None:
        """End ``hold``; if ``remove``, remove the entry in case that was asked for meanwhile."""
        if self._held.pop(work_id, False) and remove:
            self.forget([work_id])

    def forget(self, work_ids: Iterable[str]) -> None:
        """Remove the entries of delivered outcomes, except those that are kept or held."""
        for work_id in work_ids:
            if work_id in self._held:
                self._held[work_id] = True
            elif work_id in self._kept:
                del self._kept[work_id]
            elif self._connection.api is not None:
                self._removals.spawn(self._remove(work_id))

    def cancel(self, call: Call) -> None:
        """End a call's function call on Modal: what is not ended costs money."""
        self._rpcs.spawn(self._cancel(call))

    def bar(self, call: Call, reason: str) -> None:
        """Take the claim of a call before any container does."""
        if call.may_begin:
            entry = Entry(
                work_id=call.work_id,
                state=State.FAILED,
                function_call_id=call.function_call_id or "",
                container_id="",
                owner=self._partition,
                label=call.label,
                reason=reason,
            )
            self._rpcs.spawn(self._insist(lambda api: api.claim(entry), f"bar {call.label} from beginning"))

    async def _cancel(self, call: Call) -> None:
        function_call_id = call.function_call_id
        if function_call_id is not None:
            await self._insist(lambda api: api.cancel(function_call_id), f"cancel {call.label}")

    async def _insist(
        self,
        ask: Callable[[ModalApi], Awaitable[object]],
        what: str,
        backoff: Backoff | None = None,
        began_at: float | None = None,
    ) -> None:
        """Ask Modal for something until it is done, or there is no more use in it."""
        began_at = time.monotonic() if began_at is None else began_at
        backoff = backoff or Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            await ask(self._connection.get())
        except exception.NotFoundError:
            return
        except FAILURES as error:
            if time.monotonic() - began_at > INSISTENCE:
                log.error("Gave up trying to %s (%s)", what, describe(error))
                return
            kind = type(error).__name__
            self._failed.warn((what.split()[0], kind), "Could not %s yet (%s)", what, describe(error))
            self._rpcs.later(backoff.next(), lambda: self._rpcs.spawn(self._insist(ask, what, backoff, began_at)))

    async def _remove(self, work_id: str) -> None:
        """Remove an entry. If Modal refuses for long, the entry stays until it expires."""
        backoff = Backoff(REMOVE_PAUSE, LONGEST_PAUSE, factor=5.0)
        while backoff.failures < REMOVE_ATTEMPTS:
            with contextlib.suppress(*FAILURES):
                return await self._connection.get().forget(work_id)
            # This holds up the removal of other entries, which would fail as well.
            await asyncio.sleep(backoff.next())
        log.info("The ledger's entry of %s stays behind", work_id)
