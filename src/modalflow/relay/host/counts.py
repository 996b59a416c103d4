"""The counters of a relay, for its report and for metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

#: The metrics of a relay: name, kind, meaning.
METRICS: tuple[tuple[str, str, str], ...] = (
    ("requests", "counter", "Requests of containers, each once."),
    ("answered", "counter", "Requests answered by the API server."),
    ("repeats", "counter", "Repeats of requests by containers."),
    ("replays", "counter", "Second arrivals of a message. They are refused."),
    ("refused", "counter", "Malformed messages, and those without authenticity."),
    ("late", "counter", "Messages older than 60 seconds. The container sends the request again."),
    ("unknown_keys", "counter", "Messages for an unknown key, or one too old."),
    ("tunnels", "counter", "Connections to containers, if they use tunnels."),
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
    """Repeats of requests by containers."""
    replays: int = 0
    """Second arrivals of a message."""
    refused: int = 0
    """Malformed messages, and those without authenticity."""
    late: int = 0
    """Messages older than the limit."""
    unknown_keys: int = 0
    """Messages for an unknown key."""
    tunnels: int = 0
    """Connections made to containers."""
    answered: int = 0
    """Requests answered by the API server."""
    queue_seconds: float = 0.0
    """The sum of the times from containers to the relay, by their two clocks."""
    api_seconds: float = 0.0
    """The sum of the API server's times."""

    def queued(self, seconds: float) -> None:
        """Count a request, and its way to the relay."""
        self.requests += 1
        self.queue_seconds += max(0.0, seconds)

    def at_api(self, seconds: float) -> None:
        """Count an answer of the API server."""
        self.answered += 1
        self.api_seconds += seconds

    def events(self) -> Mapping[str, int]:
        """Return the counters by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "int"}
