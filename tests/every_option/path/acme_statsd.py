"""An operator's own client for StatsD: the package's, under another name."""

from __future__ import annotations

from statsd import StatsClient  # type: ignore[import-untyped]


class OwnClient(StatsClient):  # type: ignore[misc]  # The package has no types.
    """The client of the package."""
