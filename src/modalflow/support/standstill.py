"""Notice that this process stood still: stopped by a signal, short of memory, or on a machine that slept."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds without a turn that count as a standstill. Nothing in a loop takes that long.
LEAST = 4.0
#: Seconds after a standstill in which messages from before it arrive.
AFTER = 1.0


def _seconds() -> float:
    """Return the time since this machine started, with the time that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Standstill:
    """Knows when this process went on after it had stood still. It has to be asked several times in ``LEAST``."""

    def __init__(self, clock: Callable[[], float] = _seconds) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forget the time until now."""
        self._asked_at = self._clock()
        self._ended_at = float("-inf")

    def now(self) -> float:
        """Return the time, for ``was_since``."""
        now = self._clock()
        if now - self._asked_at >= LEAST:
            self._ended_at = now
        self._asked_at = now
        return now

    def was_since(self, then: float) -> bool:
        """Return whether the process stood still after ``then``."""
        self.now()
        return then < self._ended_at

    @property
    def is_fresh(self) -> bool:
        """Return whether it ended a moment ago."""
        return self.now() - self._ended_at < AFTER
