"""Spawning: several at once, backing off without standing in one another's way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from modal import exception

from modalflow.errors import ModalflowError, NotDeployedError
from modalflow.executor.calls import Call, lost_before_claim
from modalflow.executor.resources import Resources
from modalflow.executor.track import Tracker

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0

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


class Submitter:
    """``concurrency`` coroutines that take calls from one queue and spawn them."""

    def __init__(
        self,
        tracker: Tracker,
        credentials_refused: Callable[[], None],
        concurrency: int,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._tracker = tracker
        self._credentials_refused = credentials_refused
        self._later = later
        self._concurrency = concurrency
        self._waiting: asyncio.Queue[Call] = asyncio.Queue()
        self._delays: dict[str, float] = {}
        self.under_way = 0
        """How many spawns have not been answered yet."""

    def put(self, call: Call) -> None:
        """Submit a call as soon as its turn comes."""
        self._waiting.put_nowait(call)

    async def run(self) -> None:
        """Submit until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            call = await self._waiting.get()
            if call.settled:
                self._delays.pop(call.work_id, None)
                continue
            self.under_way += 1
            try:
                await self._spawn(call)
            except Exception:
                log.exception("Submitting %s went wrong; it is tried again", call.label)
                self.put_later(call)
            finally:
                self.under_way -= 1

    async def _spawn(self, call: Call) -> None:
        submission = call.submission
        assert submission is not None, "only orders are submitted"
        resources = call.options
        assert isinstance(resources, Resources)
        call.attempts += 1
        remote = self._tracker.link.made()
        try:
            function_call_id = await remote.spawn(submission.profile, resources, submission.to_wire())
        except PASSING as error:
            call.spawned_unseen = True
            call.attempts -= 1
            if isinstance(error, exception.AuthError):
                self._credentials_refused()
            log.warning(
                "Modal did not take %s yet (%s: %s); it is tried again", call.label, type(error).__name__, error
            )
            self.put_later(call)
        except (exception.NotFoundError, NotDeployedError) as error:
            remote.forget_handles()
            self._tracker.apply(call, lost_before_claim(call, str(error), self._tracker.policy))
        except (exception.Error, ModalflowError) as error:
            call.attempts = self._tracker.policy.submit_attempts
            self._tracker.apply(call, lost_before_claim(call, f"Modal refused it: {error}", self._tracker.policy))
        else:
            self._delays.pop(call.work_id, None)
            call.function_call_id = function_call_id
            self._tracker.started(call)

    def put_later(self, call: Call) -> None:
        """Submit a call after a delay that doubles each time."""
        delay = min(self._delays.get(call.work_id, FIRST_DELAY / 2) * 2, LONGEST_DELAY)
        self._delays[call.work_id] = delay
        self._later(delay, lambda: self.put(call))
