"""Repeated warnings as one line of the scheduler's log: the first of a kind, then one every 10 seconds with the count.

What concerns one task is in that task's own log, however many others it concerns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

#: Seconds between two lines of one kind.
PAUSE = 10.0


@dataclass
class DedupLogger:
    """Logs the first warning of a kind, then one every PAUSE seconds with the number of those in between.

    At level DEBUG it logs all of them.
    """

    log: logging.Logger
    clock: Callable[[], float] = time.monotonic
    _logged_at: dict[Hashable, float] = field(default_factory=dict)
    _suppressed: dict[Hashable, int] = field(default_factory=dict)

    def warn(self, kind: Hashable, text: str, *arguments: object) -> None:
        """Log a warning, unless one of its kind was logged a moment ago."""
        now = self.clock()
        if now - self._logged_at.get(kind, -PAUSE) < PAUSE:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            self.log.debug(text, *arguments)
            return
        since = now - self._logged_at.get(kind, now)
        self._logged_at[kind] = now
        if more := self._suppressed.pop(kind, 0):
            self.log.warning(f"{text} (and %s more like it in the last %.0f s)", *arguments, more, since)
        else:
            self.log.warning(text, *arguments)
