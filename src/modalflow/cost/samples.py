"""The use of processor and memory by a function call over time, in at most ``MOST`` points. No I/O.

A line of JSON in a file beside the usage records. Only pages for users read it. The reader trusts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The most points of one call. If they are full, each two become one, and the next ones cover twice the time.
MOST = 60


@dataclass(frozen=True)
class Samples:
    """The samples of one function call in one container. A short call has none."""

    function_call_id: str
    container_id: str
    began_at: float
    """When the first interval began, in seconds since the epoch by the container's clock."""
    interval: float
    """Seconds between two points: point n is at ``began_at + (n + 1) * interval``."""
    cpu: tuple[float, ...] = ()
    """The average cores that its processes used within each interval."""
    mib: tuple[float, ...] = ()
    """The largest memory of one of its processes, as seen at the end of each interval. As many as in ``cpu``."""
