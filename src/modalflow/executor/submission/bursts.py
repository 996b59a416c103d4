"""The starts of a burst's tasks: each waits in its container for its turn after the first one.

No I/O, and the clock is given. A burst is everything submitted within ``WINDOW`` seconds. Its containers become ready
at the same moment, and each task begins with a request to the Execution API.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

#: Seconds between the starts of two tasks of a burst. One process of an API server needs 36 ms for a task that does
#: nothing, so this holds up no burst. Four times as much made its answers no faster (``make bench-burst``).
SPACING = 0.025
#: The longest that a task waits, in seconds. The turns of a larger burst begin again at 0, so its starts are closer
#: together: an Airflow that starts thousands of tasks at once has an API server for them.
LONGEST = 10.0
#: Seconds for which later submissions count as the same burst: a cold start under load, or a scheduler that hands over
#: 200 tasks in batches of 16, takes as long.
WINDOW = 30.0


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
        self._submitted: deque[float] = deque()

    def next(self) -> Turn:
        """Return the turn of what is submitted now."""
        now = self._clock()
        submitted = self._submitted
        # A clock that was set back must not keep old submissions.
        while submitted and not now - WINDOW < submitted[0] <= now:
            submitted.popleft()
        submitted.append(now)
        return Turn(submitted[0], (len(submitted) - 1) * SPACING % LONGEST)
