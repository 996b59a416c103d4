"""The app of ``cold_starts``: the same function with and without a memory snapshot. Runs in containers."""

from __future__ import annotations

import time

import modal

app = modal.App("bench-snapshots")


@app.function(single_use_containers=True)
def begins() -> float:
    """Return when the body began, in a container of its own."""
    return time.time()


@app.function(single_use_containers=True, enable_memory_snapshot=True)
def begins_restored() -> float:
    """Return the same, in a container from a snapshot."""
    return time.time()
