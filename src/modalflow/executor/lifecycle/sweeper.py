"""The lost and the late: what has been silent is looked up, in Modal's word first and then in the ledger."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from modalflow.errors import MalformedMessageError
from modalflow.executor.lifecycle.call import MAX_ERRORS, Call, Phase
from modalflow.executor.lifecycle.decision import PENDING, Action, Decision, Verdict, decide
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.log_dedup import Alike
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workload_guard import alone
from modalflow.protocol.messages import Entry, State
from modalflow.reasons import Cause, explain
from modalflow.support.described import describe

log = logger(__name__)

#: Look-ups under way at once.
CONCURRENCY = 16
#: Most calls looked at in the mean, each by one RPC or two. Of 10,000 that run, each is looked at within 200 s: before
#: Airflow itself, after 300 s without a heartbeat, takes a task for lost.
LOOKS_PER_SECOND = 50
#: Of a call that is known to run, so many looks ask Modal alone, but for one.
LEDGER_EVERY = 4
#: Seconds that the end of a cancelled call waits for Modal's word on it, and between two questions.
EXPLANATION_WAIT = 3.0
EXPLANATION_POLL = 0.3

#: What a worker sees as a cancellation.
TOLD_BY_MODAL_ALONE = (Cause.FUNCTION_TIMEOUT, Cause.APP_STOPPED, Cause.OUT_OF_MEMORY, Cause.MODAL_FAILURE)


class Sweeper:
    """Looks at calls that have been silent for ``interval`` seconds, ever less often while nothing comes of it."""

    def __init__(self, tracker: Tracker, interval: float) -> None:
        self._tracker = tracker
        self._interval = interval
        self._bound = asyncio.Semaphore(CONCURRENCY)
        self._looking: set[str] = set()
        self._failed = Alike(log)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.sweep()
            except Exception:
                log.exception("A sweep went wrong; the next one goes on")

    async def sweep(self) -> None:
        """Look once at everything that is silent, but at so many calls only: those that have run for too long, then
        those that were silent for longest. So what looking costs does not grow with what runs."""
        now = time.monotonic()
        silent = self._tracker.calls.silent(now, self._interval)
        calls = sorted(silent, key=lambda call: (now < call.due_at, call.updated_at))
        calls = calls[: max(CONCURRENCY, int(LOOKS_PER_SECOND * self._interval))]
        await asyncio.gather(*(self.look(call) for call in calls))

    async def look(self, call: Call) -> None:
        """Look a call up and do what follows from it; nothing where it is being looked up."""
        if call.work_id in self._looking:
            return
        self._looking.add(call.work_id)
        try:
            with alone(self._tracker, call.work_id, "looking it up"):
                await self._look(call)
        finally:
            self._looking.discard(call.work_id)

    async def _look(self, call: Call) -> None:
        try:
            async with self._bound:
                phase = call.phase
                decision, entry = await self.judge(call)
        except FAILURES as error:
            kind = type(error).__name__
            self._failed.warn(kind, "%s could not be looked up (%s)", call.label, describe(error))
            return
        except Exception:
            call.failed_unexpectedly()
            if call.errors >= MAX_ERRORS:
                raise
            log.exception("Looking up %s went wrong; it is looked up again", call.label)
            return
        call.looked_up(time.monotonic())
        # What has changed phase meanwhile is no longer what was judged, unless it has ended.
        if not call.settled and (call.phase is phase or decision.action is Action.DELIVER):
            self._tracker.apply_found(call, decision, entry)

    async def explain(self, call: Call, entry: Entry) -> None:
        """Deliver the end of a cancelled call with Modal's word on who ended it: a Function's timeout, a stopped app.

        The worker sees the same of all of them, and tells of its end before Modal does.
        """
        with alone(self._tracker, call.work_id, "asking Modal about its end"):
            await self._explain(call, entry)

    async def _explain(self, call: Call, entry: Entry) -> None:
        deadline = time.monotonic() + EXPLANATION_WAIT
        verdict = PENDING
        try:
            if entry.cause == Cause.CANCELLED and (by := await self._tracker.link.made().cancelled_by(call.work_id)):
                reason = explain(Cause.BY_HAND, said=by, container=entry.container_id, call=entry.function_call_id)
                self._tracker.deliver(call, dataclasses.replace(entry, reason=reason, cause=reason.cause.value))
                return
            while not verdict.ended and time.monotonic() < deadline:
                verdict = await self._tracker.link.made().verdict(entry.function_call_id)
                if not verdict.ended:
                    await asyncio.sleep(EXPLANATION_POLL)
        except FAILURES as error:
            log.warning("Modal did not report the end of %s (%s)", call.label, describe(error))
        except Exception:  # Its outcome is there: it is delivered without Modal's word on it.
            log.exception("Asking Modal about the end of %s went wrong", call.label)
        says_more = verdict.reason and verdict.cause.value == entry.cause == Cause.CANCELLED.value
        if verdict.ended and (verdict.cause in TOLD_BY_MODAL_ALONE or says_more):
            reason = explain(
                verdict.cause, said=verdict.reason, container=entry.container_id, call=entry.function_call_id
            )
            self._tracker.add_reason(call.log_path, reason)
            entry = dataclasses.replace(entry, reason=reason, cause=verdict.cause.value)
        self._tracker.deliver(call, entry)

    async def judge(self, call: Call) -> tuple[Decision, Entry | None]:
        """Ask Modal, then the ledger (in this order: see ``decide``), and decide."""
        decision, entry = await self._judge(call)
        if entry is not None and entry.state is State.RUNNING and entry.function_call_id != call.function_call_id:
            # Of several function calls for one work id the one that claimed it is the one that counts.
            call.claimed_by(entry.function_call_id)
            decision, entry = await self._judge(call)
        return decision, entry

    async def _judge(self, call: Call) -> tuple[Decision, Entry | None]:
        remote = self._tracker.link.made()
        verdict: Verdict = PENDING
        if call.function_call_id is not None:
            verdict = await remote.verdict(call.function_call_id)
            known = call.phase is Phase.RUNNING and time.monotonic() < call.due_at and call.checks % LEDGER_EVERY
            if known and not verdict.ended:
                # It runs, as it did when it was last looked at: the ledger will hardly have more to say.
                return Decision(Action.WAIT), None
        try:
            entry = await remote.entry(call.work_id)
        except MalformedMessageError as error:
            log.error("The ledger's entry of %s cannot be read: %s", call.label, error)
            if verdict.ended:
                return Decision(
                    Action.FAIL, f"Its entry in the ledger was overwritten by something else: {error}"
                ), None
            return Decision(Action.WAIT), None
        return decide(call, entry, verdict, self._tracker.policy, time.time()), entry
