"""Spawning: several at once, backing off without standing in one another's way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from modal import exception

from modalflow.errors import ModalflowError, NotDeployedError
from modalflow.executor.calls import Call, Decision, Policy, lost_before_claim
from modalflow.executor.remote import Remote
from modalflow.executor.resources import Resources

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


class Owner(Protocol):
    """What the submitter needs of the engine."""

    remote: Remote
    policy: Policy

    def started(self, call: Call) -> None: ...

    def apply(self, call: Call, decision: Decision) -> None: ...

    def credentials_refused(self) -> None: ...


class Submitter:
    """``concurrency`` coroutines that take calls from one queue and spawn them."""

    def __init__(self, owner: Owner, concurrency: int, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._owner = owner
        self._later = later
        self._concurrency = concurrency
        self._waiting: asyncio.Queue[Call] = asyncio.Queue()
        self._delays: dict[str, float] = {}

    def put(self, call: Call) -> None:
        """Submit a call as soon as its turn comes."""
        self._waiting.put_nowait(call)

    @property
    def waiting(self) -> int:
        return self._waiting.qsize()

    async def run(self) -> None:
        """Submit until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            call = await self._waiting.get()
            if call.settled:
                continue
            try:
                await self._spawn(call)
            except Exception:
                log.exception("Submitting %s went wrong; it is tried again", call.label)
                self.put_later(call)

    async def _spawn(self, call: Call) -> None:
        submission = call.submission
        assert submission is not None, "only orders are submitted"
        resources = call.options
        assert isinstance(resources, Resources)
        call.attempts += 1
        remote = self._owner.remote
        try:
            function_call_id = await remote.spawn(submission.profile, resources, submission.to_wire())
        except PASSING as error:
            call.spawned_unseen = True
            call.attempts -= 1
            if isinstance(error, exception.AuthError):
                self._owner.credentials_refused()
            log.warning(
                "Modal did not take %s yet (%s: %s); it is tried again", call.label, type(error).__name__, error
            )
            self.put_later(call)
        except (exception.NotFoundError, NotDeployedError) as error:
            remote.forget_handles()
            self._owner.apply(call, lost_before_claim(call, str(error), self._owner.policy))
        except (exception.Error, ModalflowError) as error:
            call.attempts = self._owner.policy.submit_attempts
            self._owner.apply(call, lost_before_claim(call, f"Modal refused it: {error}", self._owner.policy))
        else:
            self._delays.pop(call.work_id, None)
            call.function_call_id = function_call_id
            self._owner.started(call)

    def put_later(self, call: Call) -> None:
        """Submit a call after a delay that doubles each time."""
        delay = min(self._delays.get(call.work_id, FIRST_DELAY / 2) * 2, LONGEST_DELAY)
        self._delays[call.work_id] = delay
        self._later(delay, lambda: self.put(call))
