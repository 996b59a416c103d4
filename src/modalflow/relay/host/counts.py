"""What a relay counts, for its report and for metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

#: The metrics of a relay: name, kind, meaning.
METRICS: tuple[tuple[str, str, str], ...] = (
    ("requests", "counter", "Requests of containers, each once."),
    ("answered", "counter", "Requests answered by the API server."),
    ("repeats", "counter", "Requests that a container has sent again."),
    ("replays", "counter", "Messages that have arrived before. They are refused."),
    ("refused", "counter", "Messages that are malformed or not authentic."),
    ("late", "counter", "Messages older than 60 seconds. The container sends the request again."),
    ("unknown_keys", "counter", "Messages for a key that the relay does not have, or no longer accepts."),
    ("in_flight", "gauge", "Requests without an answer."),
    ("queue_time", "timer", "From a container to the relay, by their two clocks: the mean since the last report."),
    ("api_time", "timer", "In the API server: the mean since the last report."),
)


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
