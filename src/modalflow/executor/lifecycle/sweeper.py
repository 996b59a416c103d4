"""Look-ups of calls that have been silent: Modal's status first, the ledger second, then a decision."""

from __future__ import annotations

import asyncio
import time

from modalflow.errors import MalformedMessageError
from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import MAX_ERRORS, Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.decision import Action, Decision, Policy, decide
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.call_status import PENDING
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.shortages import Shortages
from modalflow.protocol.messages import Entry, State
from modalflow.support.described import describe

log = logger(__name__)

#: Look-ups under way at once.
CONCURRENCY = 16
#: The mean number of look-ups a second, of one RPC or two each. Of 10,000 running calls each is looked up within 200 s.
#: That is before Airflow takes a task for lost, after 300 s without a heartbeat.
CHECKS_PER_SECOND = 50
#: The ledger's entry of a running call is read at every fourth look-up only; the others ask Modal alone.
LEDGER_EVERY = 4


class Sweeper:
    """Looks up calls after ``interval`` seconds of silence, less often after each look-up without a change."""

    def __init__(
        self,
        policy: Policy,
        calls: Calls,
        connection: Connection,
        tracker: Tracker,
        outcomes: Outcomes,
        interval: float,
        shortages: Shortages,
    ) -> None:
        self._policy = policy
        self._calls = calls
        self._connection = connection
        self._tracker = tracker
        self._outcomes = outcomes
        self._interval = interval
        self._shortages = shortages
        self._bound = asyncio.Semaphore(CONCURRENCY)
        self._under_way: set[str] = set()
        self._failed = DedupLogger(log)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.sweep()
            except Exception:
                log.exception("A sweep failed; the next one goes on")

    async def sweep(self) -> None:
        """Look up silent calls once: first those over their time, then those silent for longest.

        The number of look-ups is limited, so their cost does not grow with the running work.
        """
        now = time.monotonic()
        silent = self._calls.silent(now, self._interval)
        calls = sorted(silent, key=lambda call: (now < call.due_at, call.updated_at))
        calls = calls[: max(CONCURRENCY, int(CHECKS_PER_SECOND * self._interval))]
        await asyncio.gather(*(self.check(call) for call in calls))

    async def check(self, call: Call) -> None:
        """Look up a call and act on what is found, unless it is being looked up already."""
        if call.work_id in self._under_way:
            return
        self._under_way.add(call.work_id)
        try:
            with self._outcomes.guarding(call.work_id, "looking it up"):
                await self._check(call)
        finally:
            self._under_way.discard(call.work_id)

    async def _check(self, call: Call) -> None:
        try:
            async with self._bound:
                phase = call.phase
                decision, entry = await self._decide(call)
        except FAILURES as error:
            kind = type(error).__name__
            self._failed.warn(kind, "%s could not be looked up (%s)", call.label, describe(error))
            return
        except Exception:
            call.failed_unexpectedly()
            if call.errors >= MAX_ERRORS:
                raise
            log.exception("The look-up of %s failed; it is looked up again", call.label)
            return
        call.looked_up(time.monotonic())
        if decision.action is not Action.DELIVER:
            # Before the end is reported: the next try may be submitted right after.
            await self._shortages.note(call, decision.cause, entry)
        # A decision is out of date if the call has changed its phase meanwhile; an outcome is not.
        if not call.settled and (call.phase is phase or decision.action is Action.DELIVER):
            self._tracker.found(call, decision, entry)

    async def _decide(self, call: Call) -> tuple[Decision, Entry | None]:
        decision, entry = await self._ask(call)
        if entry is not None and entry.state is State.RUNNING and entry.function_call_id != call.function_call_id:
            # Of several function calls for one work id, the one that claimed it counts.
            call.claimed_by(entry.function_call_id)
            decision, entry = await self._ask(call)
        return decision, entry

    async def _ask(self, call: Call) -> tuple[Decision, Entry | None]:
        """Ask Modal, then the ledger, in this order: see ``decide``."""
        api, status = self._connection.get(), PENDING
        if call.function_call_id is not None:
            status = await api.call_status(call.function_call_id)
            running = call.phase is Phase.RUNNING and time.monotonic() < call.due_at and call.checks % LEDGER_EVERY
            if running and not status.ended:
                # It still runs, so the ledger will hardly have anything new.
                return Decision(Action.WAIT), None
        try:
            entry = await api.entry(call.work_id)
        except MalformedMessageError as error:
            log.error("The ledger's entry of %s cannot be read: %s", call.label, error)
            if status.ended:
                reason = f"Its entry in the ledger was overwritten by something else: {error}"
                return Decision(Action.FAIL, reason), None
            return Decision(Action.WAIT), None
        return decide(call, entry, status, self._policy, time.time()), entry
