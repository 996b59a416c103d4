"""Spawning: many at once, in the order in which Airflow handed them over, backing off where Modal asks for it.

What waits is kept in lanes (``lanes``), one for each Function. Calls that Modal refused for a reason that passes keep
their place in line and cost no submission attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine
from typing import Any

from modal import exception

from modalflow.errors import ModalflowError, NotDeployedError
from modalflow.executor.lifecycle.call import MAX_ERRORS, Call, Phase
from modalflow.executor.lifecycle.decision import lost_before_claim
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.modal_api.rate_limits import retry_after
from modalflow.executor.reporting.log_dedup import Alike
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.bursts import Bursts
from modalflow.executor.submission.submission_queue import FIRST_PAUSE, LONGEST_PAUSE, Lane, Lanes
from modalflow.executor.workload_guard import own_failure
from modalflow.protocol.messages import Kind
from modalflow.reasons import Cause
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe, words_of

log = logger(__name__)

#: Errors that pass by themselves: they cost no submission attempt, only time. A refused credential is among them: it
#: may be mended while the executor runs.
PASSING = (
    exception.ResourceExhaustedError,
    exception.ConnectionError,
    exception.ServiceError,
    exception.InternalError,
    exception.AuthError,
    exception.PermissionDeniedError,
    asyncio.TimeoutError,
    OSError,
)

#: Those of them that say nothing about the one call: nothing else would get through now either.
FOR_ALL = (
    exception.ResourceExhaustedError,
    exception.ConnectionError,
    exception.AuthError,
    exception.PermissionDeniedError,
    OSError,
)


class Submitter:
    """Takes calls, and spawns at most ``concurrency`` of them at once until told to stop."""

    def __init__(
        self,
        tracker: Tracker,
        credentials_refused: Callable[[], None],
        concurrency: int,
        later: Callable[[float, Callable[[], None]], object],
        run: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._tracker = tracker
        self._credentials_refused = credentials_refused
        self._later = later
        self._run = run
        self._concurrency = concurrency
        self._lanes = Lanes(concurrency, time.monotonic)
        self._places: dict[str, int] = {}
        self._present: set[str] = set()
        self._next_place = 0
        self._backoffs: dict[str, Backoff] = {}
        self._wakes_at = 0.0
        self._going = False
        self._refusals = Alike(log)
        self._bursts = Bursts(time.time)

    @property
    def under_way(self) -> int:
        """How many spawns have not been answered yet."""
        return self._lanes.under_way

    @property
    def waiting(self) -> int:
        """How many calls have no function call yet, those under way included."""
        return len(self._places)

    def start(self) -> None:
        """Begin to spawn, with all that the table of calls has without a function call: whoever was at it before is
        gone, and Modal may or may not have taken it."""
        self._lanes = Lanes(self._concurrency, time.monotonic)
        self._present.clear()
        self._backoffs.clear()
        self._wakes_at = 0.0
        self._going = True
        for call in self._tracker.calls:
            call.interrupted()
            if call.phase is Phase.QUEUED:
                self.put(call)

    def stop(self) -> None:
        """Begin no further spawn."""
        self._going = False

    def resume(self) -> None:
        """Whatever stopped the lanes is mended."""
        for lane in self._lanes:
            lane.resume()
        self._go()

    def put(self, call: Call) -> None:
        """Submit a call as soon as its turn comes; one that waits already, or is being spawned, is left alone."""
        if call.phase is not Phase.QUEUED:
            if call.phase is not Phase.SPAWNING:
                self._done(call)
        elif call.work_id not in self._present:
            self._enqueue(call)

    def _enqueue(self, call: Call) -> None:
        self._present.add(call.work_id)
        place = self._places.get(call.work_id)
        if place is None:
            place = self._places[call.work_id] = self._next_place
            self._next_place += 1
        self._lane_of(call).put(place, call)
        self._go()

    def put_later(self, call: Call) -> None:
        """Submit a call after a delay that doubles each time."""
        backoff = self._backoffs.setdefault(call.work_id, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        self._later(backoff.next(), lambda: self.put(call))

    def _lane_of(self, call: Call) -> Lane:
        assert call.submission is not None, "only orders are submitted"
        return self._lanes.of(call.submission.profile)

    def _go(self) -> None:
        """Start what may start now, and come back when more may."""
        if not self._going:
            return
        while (lane := self._lanes.next()) is not None:
            call = lane.take()
            if call.phase is not Phase.QUEUED:
                lane.dropped()
                self._present.discard(call.work_id)
                self._done(call)
            else:
                self._run(self._submit(lane, call))
        pause, now = self._lanes.pause(), time.monotonic()
        if pause is not None and not now < self._wakes_at <= now + pause:
            self._wakes_at = now + pause
            self._later(pause, self._go)

    def _done(self, call: Call) -> None:
        self._places.pop(call.work_id, None)
        self._backoffs.pop(call.work_id, None)

    async def _submit(self, lane: Lane, call: Call) -> None:
        begun_at = time.monotonic()
        try:
            try:
                await self._spawn(call)
            finally:
                self._present.discard(call.work_id)
        except PASSING as error:
            for_all = isinstance(error, FOR_ALL)
            lane.failed(begun_at, stop=for_all, seconds=retry_after(error))
            self._not_yet(call, error, with_lane=for_all)
        except (exception.NotFoundError, NotDeployedError) as error:
            lane.dropped()
            self._done(call)
            self._tracker.link.made().forget_handles()
            self._refuse(call, Cause.NOT_DEPLOYED, error)
        except (exception.Error, ModalflowError) as error:
            lane.dropped()
            self._done(call)
            call.exhausted(self._tracker.policy.submit_attempts)
            self._refuse(call, Cause.REFUSED, error)
        except Exception as error:
            # One call must not spoil the others, whatever is wrong with it, nor be tried forever.
            lane.failed(begun_at)
            call.postponed(unexpected=True)
            if call.phase is not Phase.QUEUED or call.errors < MAX_ERRORS:
                log.exception("Submitting %s went wrong; it is tried again", call.label)
                self.put_later(call)
            else:
                log.exception("Submitting %s went wrong", call.label)
                self._done(call)
                self._tracker.fail(call, own_failure(error, "submitting it"))
        except BaseException:
            lane.dropped()
            raise
        else:
            lane.succeeded()
            self._done(call)
            self._tracker.started(call)
        self._go()

    async def _spawn(self, call: Call) -> None:
        submission = call.submission
        assert submission is not None, "only orders are submitted"
        call.spawning()
        if submission.kind is Kind.WORKLOAD:
            submission = dataclasses.replace(submission, **self._bursts.next()._asdict())
        remote, wire = self._tracker.link.made(), submission.to_wire()
        function_call_id = await remote.spawn(submission.profile, call.resources, wire)
        call.submitted(function_call_id, time.monotonic())

    def _refuse(self, call: Call, cause: Cause, error: BaseException) -> None:
        if call.phase is not Phase.SPAWNING:
            # An earlier spawn, whose answer was lost, has begun it or ended it.
            self.put(call)
            return
        # An error of our own ends in the advice that fits.
        policy, advice = self._tracker.policy, "" if isinstance(error, ModalflowError) else None
        self._tracker.apply(call, lost_before_claim(call, cause, words_of(error), policy, advice=advice))

    def _not_yet(self, call: Call, error: BaseException, *, with_lane: bool) -> None:
        """Modal did not take it, in a way that passes: again with its lane, or after a delay of its own."""
        call.postponed()
        refused = isinstance(error, exception.AuthError)
        self._tracker.trouble = f"{f'Modal refused the credentials: {words_of(error)}' if refused else describe(error)}"
        if isinstance(error, exception.AuthError):
            self._credentials_refused()
        kind = type(error).__name__
        self._refusals.warn(kind, "Modal did not take %s yet (%s); it is tried again", call.label, describe(error))
        if with_lane:
            self.put(call)
        else:
            self.put_later(call)
