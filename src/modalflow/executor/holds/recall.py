"""Submitted calls without a container, taken off Modal again: their budget is used up, or their profile is paused.

The claim comes first. If a container has begun the work, it keeps it; if one gets it later, it finds the claim. If this
scheduler dies in between, the claim reads as if a container could not begin: the next scheduler submits the work again.
"""

from __future__ import annotations

import time
from functools import partial

from modal import exception

from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import Action, Decision
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.recovery import Recovery
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.protocol.messages import Entry, State
from modalflow.reasons import Cause
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between two attempts to cancel a recalled function call.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Recall:
    """Recalls calls, a bounded number at once."""

    def __init__(
        self,
        partition: str,
        connection: Connection,
        outcomes: Outcomes,
        recovery: Recovery,
        tracker: Tracker,
        tasks: BoundedTasks,
    ) -> None:
        self._partition = partition
        self._connection = connection
        self._outcomes = outcomes
        self._recovery = recovery
        self._tracker = tracker
        self._tasks = tasks
        self._failed = DedupLogger(log)

    def recall(self, call: Call, reason: str) -> bool:
        """Begin to recall a call; return False if it cannot be recalled, or has begun as far as is known."""
        function_call_id = call.function_call_id
        if call.phase is not Phase.WAITING or call.submission is None or not function_call_id:
            return False
        call.recalled(time.monotonic())
        self._tasks.spawn(self._recall(call, function_call_id, reason))
        return True

    async def _recall(self, call: Call, function_call_id: str, reason: str) -> None:
        with self._outcomes.guarding(call.work_id, "recalling it"):
            api = self._connection.get()
            entry = Entry(
                work_id=call.work_id,
                state=State.FAILED,
                function_call_id=function_call_id,
                container_id="",
                owner=self._partition,
                label=call.label,
                reason=f"Taken off Modal before a container began it: {reason}.",
                cause=Cause.API_UNREACHABLE.value,
            )
            try:
                claimed = await api.claim(entry)
                found = None if claimed else await api.entry(call.work_id)
                # The answer to an earlier attempt was lost.
                claimed = claimed or _is_own(found, entry)
            except Exception as error:  # noqa: BLE001  Whatever the SDK raises, no task fails before it has begun.
                kind = type(error).__name__
                self._failed.warn(kind, "%s could not be recalled yet (%s)", call.label, describe(error))
                self._goes_on(call, entry)
                return
            if claimed:
                await self._take_off(call, entry, reason, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
                return
            self._goes_on(call, found or entry)
            if call.settled:
                # Airflow has given it up meanwhile: then the call knew no function call to cancel.
                await self._cancel(call, function_call_id)
            elif found is not None:
                running = found.state is State.RUNNING
                self._tracker.found(call, Decision(Action.WAIT if running else Action.DELIVER), found)

    async def _take_off(self, call: Call, entry: Entry, reason: str, backoff: Backoff) -> None:
        """Cancel a claimed function call, then remove the claim: before that, a container could still begin it."""
        with self._outcomes.guarding(call.work_id, "recalling it"):
            if not await self._cancel(call, entry.function_call_id):
                if call.phase is Phase.RETRYING:
                    again = partial(self._take_off, call, entry, reason, backoff)
                    self._tasks.later(backoff.next(), lambda: self._tasks.spawn(again()))
                return
            self._recovery.free_claim(call, entry)
            if not call.settled:
                self._outcomes.waits(call, f"Not begun, and taken off Modal's queue: {reason}.")

    def _goes_on(self, call: Call, entry: Entry) -> None:
        """Wait for the function call as before, unless the call has gone on meanwhile."""
        if call.phase is Phase.RETRYING:
            call.claimed_elsewhere(entry, time.monotonic())

    async def _cancel(self, call: Call, function_call_id: str) -> bool:
        """Return whether a function call is cancelled."""
        try:
            await self._connection.get().cancel(function_call_id)
        except exception.NotFoundError:
            return True
        except Exception as error:  # noqa: BLE001  As above.
            # If a container gets it soon, it finds the claim.
            log.warning("%s of %s was not cancelled (%s)", function_call_id, call.label, describe(error))
            return False
        return True


def _is_own(found: Entry | None, entry: Entry) -> bool:
    """Return whether the claim in the ledger is that of a recall of the same function call by this executor."""
    return (
        found is not None
        and found.state is State.FAILED
        and (found.owner, found.function_call_id, found.cause) == (entry.owner, entry.function_call_id, entry.cause)
    )
