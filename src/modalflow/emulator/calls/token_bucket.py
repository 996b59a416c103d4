"""A token bucket: it allows a rate of events, with bursts up to a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class TokenBucket:
    """Tokens that come back at a rate, up to ``most``."""

    rate: float
    most: float
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._tokens, self._filled_at = self.most, self.clock()

    def take(self, wanted: int = 1) -> bool:
        """Take so many tokens, or none and return False if there are too few. A full bucket allows any number."""
        now = self.clock()
        self._tokens = min(self.most, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < min(wanted, self.most):
            return False
        self._tokens -= wanted
        return True
