"""Function calls on Modal by their ids: their outcomes, and their cancellation. Reads plain data only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import modal
from modal import exception

from modalflow.control_plane import ControlPlane
from modalflow.function_calls.endings import ENDINGS, is_pending
from modalflow.function_calls.outcome import Outcome, outcome_of
from modalflow.protocol.plain_data import plain_data_only
from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: Seconds for which Modal holds a question for an outcome. The SDK sends one RPC for at most 55 s.
HELD = 50.0
#: Seconds for an RPC beyond the time for which it is held, with the SDK's own retries.
_GRACE = 90.0
#: Seconds between two questions to a Modal that does not answer: the first pause, and the longest.
_PAUSE, _LONGEST_PAUSE = 5.0, 60.0

#: The failures of a question that is worth repeating.
TRANSIENT = (
    exception.ConnectionError,
    exception.InternalError,
    exception.ResourceExhaustedError,
    exception.ServiceError,
    OSError,
)


class FunctionCalls:
    """The function calls of one workspace. The blocking methods are for workers, the others for triggerers."""

    def __init__(self, control_plane: ControlPlane, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = control_plane.client
        self._sleep = sleep

    def outcome(self, function_call_id: str, held: float = 0.0) -> Outcome:
        """Return the state of a call; wait for its end for at most ``held`` seconds, in one RPC. Blocks."""
        try:
            with plain_data_only():
                return Outcome(value=self._handle(function_call_id).get(timeout=held))
        except ENDINGS as error:
            return outcome_of(error)

    def wait(self, function_call_id: str) -> Outcome:
        """Return the outcome of a call once it has ended. Blocks, and waits for a Modal that does not answer."""
        pause = _PAUSE
        while True:
            try:
                outcome = self.outcome(function_call_id, HELD)
            except TRANSIENT as error:
                log.warning("Modal does not answer (%s). Asking again in %g s.", describe(error), pause)
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if outcome.ended:
                return outcome
            pause = _PAUSE

    def cancel(self, function_call_id: str) -> None:
        """End a call. The other inputs of its container go on. Blocks."""
        self._handle(function_call_id).cancel()

    async def has_ended(self, function_call_id: str, held: float = 0.0) -> bool:
        """Return whether a call has ended, after at most ``held`` seconds of waiting, in one RPC.

        The result is read and dropped: Modal's SDK has no other question.
        """
        try:
            with plain_data_only():
                async with asyncio.timeout(held + _GRACE):
                    await self._handle(function_call_id).get.aio(timeout=held)
        except ENDINGS as error:
            return not is_pending(error)
        return True

    async def end(self, function_call_id: str) -> None:
        """Do the same as ``cancel``, without blocking."""
        await self._handle(function_call_id).cancel.aio()

    def _handle(self, function_call_id: str) -> Any:
        return modal.FunctionCall.from_id(function_call_id, client=self._client)
