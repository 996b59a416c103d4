"""Spawning: many calls at once, in the order in which Airflow submitted them, backing off if Modal asks for it.

A call that Modal refuses for a transient reason keeps its place in the queue and costs no submission attempt.
"""

from __future__ import annotations

import asyncio
import time

from modal import exception

from modalflow.errors import ModalflowError, NotDeployedError
from modalflow.executor.connection import Connection
from modalflow.executor.holds.admission import Admission
from modalflow.executor.lifecycle.call import MAX_ERRORS, Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.decision import Action, Policy, lost_before_claim
from modalflow.executor.lifecycle.outcomes import Outcomes, internal_failure
from modalflow.executor.loop_tasks import LoopTasks
from modalflow.executor.modal_api.rate_limits import retry_after
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.executor.submission.bursts import Bursts
from modalflow.executor.submission.placement import profiles_of
from modalflow.executor.submission.submission_queue import FIRST_PAUSE, LONGEST_PAUSE, FunctionQueue, SubmissionQueue
from modalflow.protocol.messages import Kind
from modalflow.reasons import Cause
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe, words_of

log = logger(__name__)

#: Errors that pass: they cost time, and no submission attempt. Refused credentials are among them, because they may be
#: renewed while the executor runs.
TRANSIENT = (
    exception.ResourceExhaustedError,
    exception.ConnectionError,
    exception.ServiceError,
    exception.InternalError,
    exception.AuthError,
    exception.PermissionDeniedError,
    asyncio.TimeoutError,
    OSError,
)

#: Those of them that concern every call of the Function alike.
FOR_ALL = (
    exception.ResourceExhaustedError,
    exception.ConnectionError,
    exception.AuthError,
    exception.PermissionDeniedError,
    OSError,
)


class Submitter:
    """Spawns the calls that are QUEUED, at most ``concurrency`` of them at once, until it is stopped."""

    def __init__(
        self,
        policy: Policy,
        calls: Calls,
        connection: Connection,
        outcomes: Outcomes,
        metrics: Metrics,
        tasks: LoopTasks,
        admission: Admission,
        concurrency: int,
    ) -> None:
        self._policy = policy
        self._calls = calls
        self._connection = connection
        self._outcomes = outcomes
        self._metrics = metrics
        self._tasks = tasks
        self._admission = admission
        self._queue = SubmissionQueue(concurrency, time.monotonic)
        self._backoffs: dict[str, Backoff] = {}
        self._wakes_at = 0.0
        self._running = False
        self._refusals = DedupLogger(log)
        self._bursts = Bursts(time.time)

    @property
    def under_way(self) -> int:
        """How many spawns Modal has not answered yet."""
        return self._queue.under_way

    @property
    def waiting(self) -> int:
        """How many calls have no function call yet, those under way included."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to spawn, with all QUEUED calls. Resume the work of an ended thread."""
        self._queue.clear()
        self._backoffs.clear()
        self._admission.clear()
        self._wakes_at = 0.0
        self._running = True
        for call in self._calls:
            call.interrupted()
            self.put(call)

    def stop(self) -> None:
        """Begin no further spawn."""
        self._running = False

    def resume(self) -> None:
        """End all pauses: their cause is fixed."""
        for function in self._queue:
            function.resume()
        self._fill()

    def put(self, call: Call) -> None:
        """Submit a call as soon as its turn comes; ignore one that is not QUEUED, or is in the queue."""
        if call.phase is Phase.QUEUED:
            self._queue.add(call)
            self._fill()
        elif call.phase is not Phase.SPAWNING:
            self._done(call)

    def put_later(self, call: Call) -> None:
        """Submit a call after a delay that doubles each time."""
        backoff = self._backoffs.setdefault(call.work_id, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        self._tasks.later(backoff.next(), lambda: self.put(call))

    def submit_again(self, call: Call, reason: str) -> None:
        """Submit a call once more that no container has begun."""
        self._metrics.counts["resubmitted"] += 1
        log.warning("%s is submitted again: %s", call.label, reason)
        call.lost(time.monotonic())
        self.put_later(call)

    def _fill(self) -> None:
        """Spawn what may be spawned now, and come back when more may."""
        if not self._running:
            return
        while (found := self._queue.pop()) is not None:
            if self._is_admitted(*found):
                self._tasks.spawn(self._submit(*found))
        pause, now = self._queue.seconds_to_wait(), time.monotonic()
        if pause is not None and not now < self._wakes_at <= now + pause:
            self._wakes_at = now + pause
            self._tasks.later(pause, self._fill)

    def _is_admitted(self, function: FunctionQueue, call: Call) -> bool:
        """Return whether budgets permit a call. A held call keeps its place in the order."""
        admitted = False
        # What a fault raises here concerns this call alone: the queue goes on, and the call's turn is free again.
        with self._outcomes.guarding(call.work_id, "checking its budgets"):
            admitted = call.phase is not Phase.QUEUED or self._admission.admits(call)
        if admitted:
            return True
        function.released()
        if call.settled:
            self._done(call)
        return False

    def _done(self, call: Call) -> None:
        self._queue.remove(call)
        self._backoffs.pop(call.work_id, None)

    async def _submit(self, function: FunctionQueue, call: Call) -> None:
        if call.phase is not Phase.QUEUED:
            function.released()
            self._done(call)
            self._fill()
            return
        began_at = time.monotonic()
        try:
            await self._spawn(call)
        except TRANSIENT as error:
            for_all = isinstance(error, FOR_ALL)
            function.refused(began_at, stop=for_all, seconds=retry_after(error))
            self._postpone(call, error, with_function=for_all)
        except (exception.NotFoundError, NotDeployedError) as error:
            self._connection.get().forget_handles()
            may_come = await self._may_come(function, call)
            # An earlier spawn of the call may run once the Function is there again.
            if not may_come and not call.spawn_unconfirmed:
                function.missing_since = None
                function.released()
                self._refuse(call, Cause.NOT_DEPLOYED, error, final=True)
            elif function.missing(began_at):
                self._postpone(call, error, with_function=True)
            else:
                function.released()
                self._refuse(call, Cause.NOT_DEPLOYED, error)
        except (exception.Error, ModalflowError) as error:
            function.released()
            self._refuse(call, Cause.REFUSED, error, final=True)
        except Exception as error:
            # One call must not stop the others, whatever is wrong with it, and must not be tried forever.
            log.exception("Submitting %s failed unexpectedly", call.label)
            function.refused(began_at)
            self._failed_unexpectedly(call, error)
        except BaseException:
            function.released()
            raise
        else:
            function.accepted()
            self._connection.accepted()
            self._done(call)
            self._outcomes.started(call)
        self._fill()

    async def _may_come(self, function: FunctionQueue, call: Call) -> bool:
        """Return whether a Function that Modal does not have is one that was deployed: it may be deployed again.

        The record of what is deployed outlives a stopped app. It is read again for the first call that misses it. If
        that fails, the known record decides.
        """
        assert call.submission is not None, "what is QUEUED has been placed"
        if function.missing_since is None:
            function.not_found()
            try:
                await self._connection.refresh_deployment()
            except Exception:  # Whatever is wrong with the record, the call must not stay in the middle of its spawn.
                log.exception("The record of what is deployed could not be read")
        return call.submission.profile in profiles_of(self._connection.deployment)

    async def _spawn(self, call: Call) -> None:
        submission = call.submission
        assert submission is not None, "what is QUEUED has been placed"
        call.spawning(time.time())
        # A repeated submission has another moment, another turn and the newest key, so they are in no copy of it.
        wire = submission.to_wire() | {"spawned_at": call.spawned_at}
        if submission.kind is Kind.WORKLOAD:
            wire.update(self._bursts.next()._asdict())
        if self._connection.relay:
            wire.update(relay=self._connection.relay, relay_transport=self._connection.relay_transport)
        api = self._connection.get()
        function_call_id = await api.spawn(submission.profile, call.resources, wire)
        call.submitted(function_call_id, time.monotonic())

    def _refuse(self, call: Call, cause: Cause, error: BaseException, *, final: bool = False) -> None:
        """Deal with a refusal that does not pass; ignore it if an earlier spawn of the call has been answered.

        ``final`` refusals leave no further submission: Modal would refuse it as well.
        """
        if call.phase is not Phase.SPAWNING:
            self.put(call)
            return
        self._done(call)
        # An error of modalflow's own ends in the advice that fits.
        advice = "" if isinstance(error, ModalflowError) else None
        decision = lost_before_claim(call, cause, words_of(error), self._policy, advice=advice, final=final)
        if decision.action is Action.SUBMIT_AGAIN:
            self.submit_again(call, decision.reason)
        else:
            self._outcomes.fail(call, decision.reason, decision.cause)

    def _failed_unexpectedly(self, call: Call, error: Exception) -> None:
        call.postponed(unexpected=True)
        if call.phase is not Phase.QUEUED or call.errors < MAX_ERRORS:
            self.put_later(call)
        else:
            self._done(call)
            self._outcomes.fail(call, internal_failure(error, "submitting it"))

    def _postpone(self, call: Call, error: BaseException, *, with_function: bool) -> None:
        """Submit a call again that Modal did not accept for now: with its Function's queue, or after its own delay."""
        call.postponed()
        credentials = isinstance(error, exception.AuthError)
        obstacle = f"Modal refused the credentials: {words_of(error)}" if credentials else describe(error)
        self._connection.blocked(obstacle)
        kind = type(error).__name__
        self._refusals.warn(kind, "Modal did not accept %s yet (%s); it is tried again", call.label, describe(error))
        if with_function:
            self.put(call)
        else:
            self.put_later(call)
