"""The clock of the control plane: the time of the system, plus the skew of a fault.

Owns the skew. Timestamps and lifetimes that clients see use this clock. Durations within the control plane use
time.monotonic, without the skew. There is one clock for each process, as for the system.
"""

from __future__ import annotations

import time

_skew = 0.0


def now() -> float:
    """Return seconds since the epoch, as ``time.time``."""
    return time.time() + _skew


def now_ns() -> int:
    """Return nanoseconds since the epoch, as ``time.time_ns``."""
    return time.time_ns() + int(_skew * 1e9)


def skew(seconds: float) -> None:
    """Set the skew; 0 means the time of the system."""
    global _skew
    _skew = seconds
