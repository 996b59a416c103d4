"""The outcome of an input after its container reported or ended: a result, another try, or a failure.

Owns retries, timeouts, cancellation and lost containers, with respect to the input. Pools.py decides about its next
container, and passes in the two ways back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from modal_proto import api_pb2

from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers import results
from modalflow.emulator.containers.container import Container
from modalflow.support.backoff import Backoff

log = logging.getLogger(__name__)

#: The number of lost containers of a deployed app before their inputs fail with the reason. Modal retries those inputs
#: forever, and inputs of an ephemeral app until "a failure rate is exceeded" (its guide, "Failures and retries"). On a
#: laptop a user waits for the reason. The numbers here belong to this control plane.
CRASH_TRIES = 3

#: The pauses before an input with a lost container is tried again.
CRASH_BACKOFF = Backoff(0.25, 30.0)

#: Seconds for an input to end after its timeout, before its container is killed. Inferred.
TIMEOUT_GRACE = 5.0

#: The same after a cancellation. Inferred: as long as exit handlers have (Modal's guide, "Container lifecycle hooks").
CANCEL_GRACE = 30.0

_RETRIED = (
    api_pb2.GenericResult.GENERIC_STATUS_FAILURE,
    api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT,
    results.OUT_OF_MEMORY,
)


class Outcomes:
    """The rules for inputs assigned to a container."""

    def __init__(self, submit: Callable[[Input], None], requeue: Callable[[Input], None]) -> None:
        """``submit`` puts an input behind all others, ``requeue`` before them."""
        self._submit, self._requeue = submit, requeue
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self, container: Container, item: Input) -> None:
        """Start the input's time in this container."""
        seconds = container.spec.timeout_secs
        if seconds:
            loop = asyncio.get_running_loop()
            self._timers[item.input_id] = loop.call_later(seconds, self.time_out, container, item)

    def remove(self, container: Container, item: Input) -> None:
        """Note the end of the input in this container."""
        timer = self._timers.pop(item.input_id, None)
        if timer is not None:
            timer.cancel()
        container.release_input(item)

    def settle(self, item: Input, result: api_pb2.GenericResult, data_format: int = 0) -> None:
        """Resolve the input, or try it again if the function's retry policy allows it."""
        if item.ending is not None:
            result, data_format = item.ending, 0
        function = item.call.function
        policy = function.spec.retry_policy
        if result.status in _RETRIED and item.retries < policy.retries and not function.callable_reason:
            item.retries += 1
            item.ending = None
            item.save()
            delay = policy.initial_delay_ms * (policy.backoff_coefficient or 1.0) ** (item.retries - 1)
            self._later(min(delay, policy.max_delay_ms or delay) / 1000, item)
            return
        item.call.resolve(item, result, data_format)

    def container_lost(self, container: Container, item: Input, returncode: int, ending: str) -> None:
        """Handle an input after the end of its container."""
        self.remove(container, item)
        if item.ending is not None:
            self.settle(item, item.ending)
            return
        if container.death is not None:
            self.settle(item, container.death)
            return
        if container.end_reason or time.monotonic() < container.blameless_until:
            self._requeue(item)
            return
        item.crashes += 1
        item.save()
        reason = f"container {container.container_id} {ending} while running this input"
        log.info("%s (%s, loss %d)", reason, item.input_id, item.crashes)
        if item.call.function.app.is_deployed and item.crashes < CRASH_TRIES:
            self._later(CRASH_BACKOFF.after(item.crashes), item)
            return
        if item.crashes > 1:
            reason += f"; it was the last of {item.crashes} containers lost to it"
        item.call.resolve(item, results.crashed(reason, returncode))

    def cancel(self, container: Container, item: Input, *, terminate_container: bool) -> None:
        """End the input as TERMINATED, when its container reports the end or is killed."""
        if terminate_container:
            container.kill(f"a user cancelled input {item.input_id} and asked to terminate its container")
        else:
            self._request_end(container, item, CANCEL_GRACE, "did not act on the cancellation of")

    def time_out(self, container: Container, item: Input) -> None:
        """Handle an input after its timeout."""
        if item.done or item.ending is not None or container.inputs.get(item.input_id) is not item:
            return
        item.ending = results.timed_out(container.container_id, container.spec.timeout_secs)
        self._request_end(container, item, TIMEOUT_GRACE, "did not end after the timeout of")

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def _request_end(self, container: Container, item: Input, grace: float, what: str) -> None:
        container.changes.notify()
        if container.concurrency > 1:
            # One cancelled synchronous input ends the whole container, without a fault of the others.
            container.blameless_until = time.monotonic() + grace
        reason = f"it {what} input {item.input_id} for {grace:g} s"
        asyncio.get_running_loop().call_later(grace, self._kill_if_running, container, item, reason)

    @staticmethod
    def _kill_if_running(container: Container, item: Input, reason: str) -> None:
        if container.inputs.get(item.input_id) is item and item.ending is not None:
            container.kill(reason)

    def _later(self, delay: float, item: Input) -> None:
        asyncio.get_running_loop().call_later(delay, self._submit, item)
