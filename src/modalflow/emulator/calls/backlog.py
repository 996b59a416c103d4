"""The unfinished inputs of a function, and Modal's documented limits on their number and rate.

Owns the limits and the counting: the counts change as inputs come and go, nothing is searched. A refusal names the
limit.

The numbers are from Modal's guide, "Scaling out". It is inferred that they count per function, or variant with options
of its own, that spawned inputs do not count among the 25,000, and how the errors are worded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.calls.token_bucket import TokenBucket

#: Inputs of `.remote` and `.map`: those that no container has yet, and all unfinished ones.
MAX_WAITING = 2_000
MAX_UNFINISHED = 25_000

#: Inputs of `.spawn` and `.spawn_map` that no container has yet.
MAX_SPAWNED_WAITING = 1_000_000

#: Inputs per second, if rates are limited; the inputs of one second may come at once (inferred).
RATE = 200.0
SPAWN_RATE = 1_500.0

_SPAWNED = (
    api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
    api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC_LEGACY,
)


def is_spawn(invocation: int) -> bool:
    """Return whether a call is a spawn, which no caller waits for."""
    return invocation in _SPAWNED


class Backlog:
    """The unfinished inputs of one function: those that a caller waits for, and the spawned ones."""

    def __init__(self) -> None:
        self._unfinished = {False: 0, True: 0}
        self._buckets: dict[bool, TokenBucket] = {}

    def count(self, invocation: int, change: int) -> None:
        """Count more unfinished inputs of such calls, or fewer if ``change`` is negative."""
        self._unfinished[is_spawn(invocation)] += change

    def check(self, invocation: int, more: int, running: Callable[[], Iterable[int]], *, rates: bool) -> None:
        """Raise RESOURCE_EXHAUSTED if that many more inputs are over a limit; ``running`` yields running invocations.

        The error has no RPCRetryPolicy, so that `.remote` and `.spawn` raise ResourceExhaustedError, as documented;
        `.map` and `.spawn_map` retry it in any case (the SDK's ``additional_status_codes``).
        """
        spawn = is_spawn(invocation)
        unfinished = self._unfinished[spawn] + more
        most = MAX_SPAWNED_WAITING if spawn else MAX_WAITING
        # Running inputs are counted only if they can matter.
        if unfinished > most:
            waiting = unfinished - sum(is_spawn(each) == spawn for each in running())
            if waiting > most:
                raise _exhausted(f"{waiting - more} inputs wait, and {more} more are over the limit of {most}")
        if not spawn and unfinished > MAX_UNFINISHED:
            raise _exhausted(
                f"{unfinished - more} inputs wait or run, and {more} more are over the limit of {MAX_UNFINISHED}"
            )
        if rates and not self._bucket(spawn).take(more):
            rate = self._bucket(spawn).rate
            raise _exhausted(f"inputs come faster than {rate:g} a second")

    def _bucket(self, spawn: bool) -> TokenBucket:
        bucket = self._buckets.get(spawn)
        if bucket is None:
            rate = SPAWN_RATE if spawn else RATE
            bucket = self._buckets[spawn] = TokenBucket(rate, rate)
        return bucket


def _exhausted(why: str) -> GRPCError:
    return GRPCError(
        Status.RESOURCE_EXHAUSTED,
        f"Resource limit of the function exceeded: {why}; call it again later, or use spawn if you do not need the "
        "result at once",
    )
