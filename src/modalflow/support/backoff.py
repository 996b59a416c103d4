"""Growing pauses between attempts, with a mode without waits for tests.

Owns the arithmetic. Callers count in it, sleep and log themselves; so a thread, a coroutine and a timer can use it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Seconds of every pause while ``testing``; None outside of tests.
_testing: float | None = None


@dataclass
class Backoff:
    """The pauses after failures in a row: ``first`` seconds, each next ``factor`` times as long, up to ``longest``."""

    first: float
    longest: float
    factor: float = 2.0
    jitter: float = 0.0
    """The largest random part of a pause, so that clients do not return together."""
    rng: Callable[[], float] = random.random
    """Returns a number from 0 to 1."""
    failures: int = field(default=0, init=False)
    """How many attempts in a row have failed."""

    def next(self, at_least: float = 0.0) -> float:
        """Count a failure. Return the seconds until the next attempt; the other side may set a minimum."""
        self.failures += 1
        return self.pause(at_least)

    def pause(self, at_least: float = 0.0) -> float:
        """Return the seconds after the failures so far, without counting another one."""
        return max(self.after(self.failures), at_least) * (1 + self.jitter * self.rng())

    def reset(self) -> None:
        """Forget the failures: an attempt has succeeded."""
        self.failures = 0

    def after(self, failures: int) -> float:
        """Return the seconds after this many failures in a row, without jitter, for a caller with its own count."""
        if failures <= 0:
            return 0.0
        if _testing is not None:
            return _testing
        try:
            return min(self.first * self.factor ** (failures - 1), self.longest)
        except OverflowError:
            return self.longest


@contextmanager
def testing(seconds: float = 0.0) -> Iterator[None]:
    """Make every pause of this process take ``seconds``, however many failures there were. For tests only."""
    global _testing
    before, _testing = _testing, seconds
    try:
        yield
    finally:
        _testing = before
