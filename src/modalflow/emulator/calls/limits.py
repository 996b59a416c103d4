"""How many inputs may wait for a function, and how fast they may come, as Modal documents it.

Owns the numbers and the counting: a count is kept as inputs come and go, nothing is searched. Who is refused reads
which limit it was.

The numbers are those of Modal's guide, "Scaling out". That they count per function, or variant with options of its
own, that spawned inputs are not in the 25,000, and the words of the errors are inferred.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from grpclib import GRPCError, Status
from modal_proto import api_pb2

#: Inputs of `.remote` and `.map` that no container has yet, and those together with what runs.
MAX_WAITING = 2_000
MAX_UNFINISHED = 25_000

#: Inputs of `.spawn` and `.spawn_map` that no container has yet.
MAX_SPAWNED_WAITING = 1_000_000

#: Inputs per second, where they are limited at all; a second's worth may come at once (inferred).
RATE = 200.0
SPAWN_RATE = 1_500.0

_SPAWNED = (
    api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
    api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC_LEGACY,
)


def is_spawn(invocation: int) -> bool:
    """Whether a call is one that nobody waits for."""
    return invocation in _SPAWNED


@dataclass
class Bucket:
    """Tokens that fill up at a rate, as many as ``most``."""

    rate: float
    most: float
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._tokens, self._filled_at = self.most, self.clock()

    def take(self, wanted: int = 1) -> bool:
        """Take so many tokens; False, and none taken, if there are too few. Of a full one any number may be taken."""
        now = self.clock()
        self._tokens = min(self.most, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < min(wanted, self.most):
            return False
        self._tokens -= wanted
        return True


class Backlog:
    """The unfinished inputs of one function: those that somebody waits for, and the spawned ones."""

    def __init__(self) -> None:
        self._unfinished = {False: 0, True: 0}
        self._buckets: dict[bool, Bucket] = {}

    def count(self, invocation: int, change: int) -> None:
        """So many more inputs of such calls are unfinished, or fewer."""
        self._unfinished[is_spawn(invocation)] += change

    def check(self, invocation: int, more: int, running: Callable[[], Iterable[int]], *, rates: bool) -> None:
        """Raise RESOURCE_EXHAUSTED if so many more inputs are too many; ``running`` gives the invocations that run.

        Without RPCRetryPolicy: `.remote` and `.spawn` shall raise ResourceExhaustedError, as documented; `.map` and
        `.spawn_map` try again of their own accord (the SDK's ``additional_status_codes``).
        """
        spawn = is_spawn(invocation)
        unfinished = self._unfinished[spawn] + more
        most = MAX_SPAWNED_WAITING if spawn else MAX_WAITING
        # What runs is counted only where it can matter.
        if unfinished > most:
            waiting = unfinished - sum(is_spawn(each) == spawn for each in running())
            if waiting > most:
                raise _exhausted(f"{waiting - more} inputs wait for it and {more} more are over the limit of {most}")
        if not spawn and unfinished > MAX_UNFINISHED:
            raise _exhausted(
                f"{unfinished - more} inputs of it wait or run and {more} more are over the limit of {MAX_UNFINISHED}"
            )
        if rates and not self._bucket(spawn).take(more):
            rate = self._bucket(spawn).rate
            raise _exhausted(f"inputs come faster than {rate:g} a second")

    def _bucket(self, spawn: bool) -> Bucket:
        bucket = self._buckets.get(spawn)
        if bucket is None:
            rate = SPAWN_RATE if spawn else RATE
            bucket = self._buckets[spawn] = Bucket(rate, rate)
        return bucket


def _exhausted(why: str) -> GRPCError:
    return GRPCError(
        Status.RESOURCE_EXHAUSTED,
        f"Resource limit of the function exceeded: {why}; call it again later, or spawn what nobody waits for",
    )
