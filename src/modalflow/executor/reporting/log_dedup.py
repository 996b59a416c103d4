"""What happens to thousands at once is a line of the scheduler's log, not thousands.

Owns how often the same is said of different calls. What concerns one task stands in that task's log, whoever else it
happens to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

#: Seconds between two lines of what is alike.
PAUSE = 10.0


@dataclass
class Alike:
    """Says the first of many alike, and then every PAUSE seconds another one with the number of those in between.

    All of them are there at level DEBUG.
    """

    log: logging.Logger
    clock: Callable[[], float] = time.monotonic
    _said_at: dict[Hashable, float] = field(default_factory=dict)
    _unsaid: dict[Hashable, int] = field(default_factory=dict)

    def warn(self, kind: Hashable, text: str, *arguments: object) -> None:
        """Say it, unless of this kind something was said a moment ago."""
        now = self.clock()
        if now - self._said_at.get(kind, -PAUSE) < PAUSE:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            self.log.debug(text, *arguments)
            return
        since = now - self._said_at.get(kind, now)
        self._said_at[kind] = now
        if more := self._unsaid.pop(kind, 0):
            self.log.warning(f"{text} (and %s more like it in the last %.0f s)", *arguments, more, since)
        else:
            self.log.warning(text, *arguments)
