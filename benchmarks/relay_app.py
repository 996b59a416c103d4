"""The app of the relay's benchmark: a container that sends requests, directly or over relays."""

from __future__ import annotations

from typing import Any

import modal

from modalflow.names import Names

NAMES = Names("bench-relay")
#: The relay key of this benchmark, for every process: no deployment hands it over.
KEY_ID = "20260101T000000_bench"

image = modal.Image.debian_slim().add_local_python_source("modalflow", "benchmarks")
app = modal.App(NAMES.app, image=image, include_source=False)


@app.function(name="beats", timeout=3600, single_use_containers=True)
async def beats(way: str, public: str, tasks: int, every: float, seconds: float) -> list[float]:
    """Send the heartbeats of several tasks of one container; return the seconds from each one's time to its answer."""
    from benchmarks.relay_requests import Requests

    return await Requests("", way, public, 1).beats(tasks, every, seconds)


@app.function(name="measure", timeout=3600, max_containers=1)
async def measure(url: str, way: str, public: str, sessions: int, each: int, seconds: float) -> dict[str, Any]:
    """Return figures of requests to the URL, or over relays: ``way`` is direct, queues or tunnel.

    First 150 requests one after the other, then ``each`` clients in each of the ``sessions`` for some seconds.
    """
    from benchmarks.relay_requests import Requests

    return await Requests(url, way, public, sessions).measure(each, seconds)
