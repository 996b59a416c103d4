"""What a relay counts, for its report and for metrics."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass
class Counts:
    """Numbers since the relay's start. Times are sums, in seconds."""

    requests: int = 0
    """Requests taken, each once."""
    repeats: int = 0
    """Requests that a container has sent again."""
    replays: int = 0
    """Messages that have been here before."""
    refused: int = 0
    """Messages that are malformed, or not authentic."""
    late: int = 0
    """Messages that were too old."""
    unknown_keys: int = 0
    """Messages for a key that the relay did not know."""
    queue_seconds: float = 0.0
    """Between a container's clock and this machine's: the time on the way here."""
    api_seconds: float = 0.0
    """The time of the API server."""
    api_requests: int = 0

    def queued(self, seconds: float) -> None:
        """Count the way of a request to the relay."""
        self.queue_seconds += seconds

    def at_api(self, seconds: float) -> None:
        """Count a request that the API server has answered."""
        self.api_seconds += seconds
        self.api_requests += 1

    def to_wire(self) -> dict[str, float]:
        """Return all numbers by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
