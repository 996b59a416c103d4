"""The starts of a burst's tasks: each waits in its container for its turn after the first one.

No I/O, and the clock is given. Containers of tasks that are submitted in the same seconds may become ready at the same
moment, and each task begins with a request to the Execution API. A steady flow of tasks is no burst, however long it
lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

#: Seconds between the starts of two tasks of a burst. One process of an API server needs 36 ms for a task that does
#: nothing, so this holds up no burst. Four times as much made its answers no faster (``make bench-burst``).
SPACING = 0.025
#: The longest that a task waits, in seconds. The turns of a larger burst begin again at 0, so its starts are closer
#: together: an Airflow that starts thousands of tasks at once has an API server for them.
LONGEST = 10.0
#: Submissions a second that never become a burst. Those of a cold start of 10 s can all become ready at once, and one
#: process of an API server answers their first requests within 2 s.
FLOW = 5.0


class Turn(NamedTuple):
    """When a task of a burst starts."""

    burst_began_at: float
    """Seconds since the epoch."""
    start_after: float
    """Seconds after that, or after the container is ready if that is later."""


class Bursts:
    """Gives each submission its turn: the first of a burst starts at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` returns seconds since the epoch."""
        self._clock = clock
        self._began_at = self._last_at = 0.0
        self._size = 0.0
        """The submissions of the burst, less what a steady flow would have submitted meanwhile."""

    def next(self) -> Turn:
        """Return the turn of what is submitted now."""
        now = self._clock()
        self._size -= (now - self._last_at) * FLOW
        # A clock that was set back begins a new burst.
        if self._size < 0.0 or now < self._last_at:
            self._size, self._began_at = 0.0, now
        self._last_at = now
        turn = Turn(self._began_at, self._size * SPACING % LONGEST)
        self._size += 1.0
        return turn
