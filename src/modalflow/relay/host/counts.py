"""What a relay counts, for its report and for metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Counts:
    """Numbers since the relay's start."""

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
    """Messages for a key that the relay did not have."""
    answered: int = 0
    """Requests that the API server has answered."""
    queue_seconds: float = 0.0
    """The sum of the times from containers to the relay, by their two clocks."""
    api_seconds: float = 0.0
    """The sum of the API server's times."""

    def queued(self, seconds: float) -> None:
        """Count a request, and its way to the relay."""
        self.requests += 1
        self.queue_seconds += max(0.0, seconds)

    def at_api(self, seconds: float) -> None:
        """Count a request that the API server has answered."""
        self.answered += 1
        self.api_seconds += seconds

    def events(self) -> Mapping[str, int]:
        """Return the counters by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "int"}
