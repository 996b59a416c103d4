"""What the control plane calls now: the system's time, and a skew where a fault asks for one.

Owns the skew. Whatever is told to clients or compared with what they were told (timestamps, lifetimes) is taken from
here; durations that the control plane measures for itself are time.monotonic's, which no skew touches. It is one per
process, as the system's is.
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
    """Be off by so much from now on; 0 is the system's time again."""
    global _skew
    _skew = seconds
