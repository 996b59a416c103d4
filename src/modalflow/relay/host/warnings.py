"""Warnings of a relay about its containers: a few of each kind, because a hostile container can cause thousands."""

from __future__ import annotations

import logging
import time

#: Seconds between two warnings of a kind.
PAUSE = 10.0

LATE = (
    "A request was sent %.0f s ago by the container's clock: it comes again with this machine's time. It waited "
    "while no relay took requests, or the clocks differ. If this is in the log often, check the clock of this machine."
)


class Warnings:
    """Writes warnings into a log."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._at: dict[str, float] = {}

    def warn(self, kind: str, text: str, *arguments: object) -> None:
        """Log a warning, unless there was one of its kind a moment ago. ``kind`` is none of a container's texts."""
        now = time.monotonic()
        if now - self._at.get(kind, -PAUSE) >= PAUSE:
            self._at[kind] = now
            self._log.warning(text, *arguments)
