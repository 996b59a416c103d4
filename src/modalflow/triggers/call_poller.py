"""The wait for many function calls with few RPCs: one poller for all triggers of a triggerer and connection.

Modal's SDK has no question for several calls. So a few calls have a question that Modal holds until their end, and the
others are asked in turn: less often with their age, and with their number.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from modal import exception

from modalflow.errors import ControlPlaneUnreachableError, CredentialsError
from modalflow.function_calls.function_calls import HELD, TRANSIENT
from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: Questions that Modal holds at a time; each takes a stream of the connection.
MOST_HELD = 50
#: Other questions at a time.
MOST_AT_ONCE = 16
#: Other questions a second, on average. With more calls, the pauses grow.
MOST_A_SECOND = 25.0
#: Seconds between two questions for one call: a share of the call's age, within limits.
SHARE_OF_AGE, SHORTEST, LONGEST = 0.2, 1.0, 60.0
#: Pauses differ by this share, so calls of one moment do not stay in step.
_JITTER = 0.2
#: Seconds for which refused credentials are tried again: a token may just have been replaced.
PATIENCE = 600.0

_REFUSED = (exception.AuthError, CredentialsError)
_FAILURES = (*TRANSIENT, *_REFUSED, ControlPlaneUnreachableError)


class AskedCalls(Protocol):
    """The questions to Modal."""

    async def has_ended(self, function_call_id: str, held: float = 0.0) -> bool:
        """Return whether a call has ended, after at most ``held`` seconds."""


async def _apart(question: Coroutine[Any, Any, bool]) -> bool:
    """Await a question in a task of its own.

    Modal's SDK drops the message of a cancellation. Airflow recognises an action of a user by it.
    """
    task = asyncio.ensure_future(question)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    return task.result()


class CallPoller:
    """Waits for function calls. All its methods run on one event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AskedCalls]],
        disconnect: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``connect`` returns the present connection; ``disconnect`` makes the next one read the credentials again."""
        self._connect, self._disconnect, self._clock = connect, disconnect, clock
        self._waiting = self._held = 0
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._failing_since: float | None = None

    async def wait(self, function_call_id: str, spawned_at: float) -> None:
        """Return once a call has ended. Raises CredentialsError if Modal refuses the credentials for long."""
        self._waiting += 1
        try:
            while not await self._has_ended(function_call_id, spawned_at):
                pass
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._failing_since = None

    async def _has_ended(self, function_call_id: str, spawned_at: float) -> bool:
        try:
            ended = await self._ask(function_call_id, spawned_at)
        except _FAILURES as error:
            await asyncio.sleep(self.pause(self._failed(error)))
            return False
        if self._failing_since is not None:
            log.info("Function calls can be asked for again, after %.0f s.", self._clock() - self._failing_since)
            self._failing_since = None
        return ended

    async def _ask(self, function_call_id: str, spawned_at: float) -> bool:
        calls = await self._connect()
        if self._held < MOST_HELD:
            self._held += 1
            try:
                return await _apart(calls.has_ended(function_call_id, HELD))
            finally:
                self._held -= 1
        async with self._turns:
            ended = await _apart(calls.has_ended(function_call_id))
        if not ended:
            await asyncio.sleep(self.pause(self._clock() - spawned_at))
        return ended

    def pause(self, age: float) -> float:
        """Return the seconds until the next question for a call of this age."""
        least = self._waiting / MOST_A_SECOND
        pause = min(max(SHORTEST, age * SHARE_OF_AGE), LONGEST)
        return max(pause, least) * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _failed(self, error: BaseException) -> float:
        """Return for how many seconds Modal has not answered. Raises CredentialsError after long refusals."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("Whether function calls have ended cannot be asked now (%s). Asking again.", describe(error))
        if isinstance(error, _REFUSED):
            self._disconnect()
            if now - self._failing_since > PATIENCE:
                raise CredentialsError(f"Modal has refused the credentials for {PATIENCE:.0f} s: {describe(error)}")
        return now - self._failing_since
