"""The app whose functions are timed. Runs in containers."""

from __future__ import annotations

import time

import modal

app = modal.App("bench", image=modal.Image.debian_slim())


@app.function()
def nothing() -> None:
    """Return at once."""


@app.function(max_containers=4)
@modal.concurrent(max_inputs=50)
def nothing_at_once(_number: int) -> None:
    """Return at once, in a container that runs others of it meanwhile."""


@app.function(single_use_containers=True)
def begins() -> float:
    """Return when the body began, in a container of its own."""
    return time.time()


@app.function(single_use_containers=True, max_containers=20)
def begins_and_stays(seconds: float) -> float:
    """The same, and keep the container busy for a while."""
    began = time.time()
    time.sleep(seconds)
    return began


@app.function(max_containers=10)
def stays(seconds: float) -> None:
    """Keep a container busy for a while."""
    time.sleep(seconds)


@app.function(max_containers=1, timeout=3600)
def waits(seconds: float) -> None:
    """Keep the only container busy, so that what comes next is queued."""
    time.sleep(seconds)
