"""Division of a container's time. No clock: callers pass the time.

A container costs the same with one function call or with four, and also while it waits. Each second is divided among
its running calls. Seconds without a call count for the next call. The time after the last call counts for none.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A call's part of the container's time, in seconds."""

    own: float
    """While it ran: all of it if it was alone, half if there were two."""
    idle: float = 0.0
    """While nothing ran, before it."""
    cold: float = 0.0
    """From the start of the container, if this was its first call."""

    @property
    def whole(self) -> float:
        return self.own + self.idle + self.cold


@dataclass
class _Open:
    idle: float
    cold: float
    own: float = 0.0


class Meter:
    """Divides a container's time among its calls. If a clock goes backwards, it stands still here."""

    def __init__(self, born: float) -> None:
        self._at = born
        self._open: dict[Hashable, _Open] = {}
        self._idle = 0.0
        self._cold: float | None = 0.0

    def begin(self, call: Hashable, now: float) -> None:
        self._advance(now)
        self._open[call] = _Open(self._idle, self._cold or 0.0)
        self._idle, self._cold = 0.0, None

    def end(self, call: Hashable, now: float) -> Share:
        """Return the call's share; KeyError if it does not run."""
        self._advance(now)
        ended = self._open.pop(call)
        return Share(ended.own, ended.idle, ended.cold)

    def drop(self, call: Hashable, now: float) -> None:
        """Record a call without work: its share goes to the next call."""
        self._idle += self.end(call, now).whole

    @property
    def pending(self) -> float:
        """Time not yet given to an ended call."""
        still = sum(each.own + each.idle + each.cold for each in self._open.values())
        return self._idle + (self._cold or 0.0) + still

    def _advance(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        if self._open:
            for each in self._open.values():
                each.own += passed / len(self._open)
        elif self._cold is not None:
            self._cold += passed
        else:
            self._idle += passed
