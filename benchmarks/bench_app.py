"""The app with the timed functions. Runs in containers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import modal

app = modal.App("bench", image=modal.Image.debian_slim())


@app.function()
def nothing() -> None:
    """Return at once."""


@app.function(max_containers=4)
@modal.concurrent(max_inputs=50)
def nothing_at_once(_number: int) -> None:
    """Return at once, in a container with other parallel inputs."""


@app.function(single_use_containers=True)
def begins() -> float:
    """Return when the body began, in a container of its own."""
    return time.time()


volume = modal.Volume.from_name("bench-empty", create_if_missing=True, version=2)
large_volume = modal.Volume.from_name("bench-large", create_if_missing=True, version=2)


@app.function(volumes={"/vol": large_volume}, single_use_containers=True, timeout=600)
def fill(files: int, megabytes: int) -> None:
    """Write this many small files and one large one onto the Volume."""
    folder = Path("/vol/many")
    folder.mkdir()
    for number in range(files):
        (folder / str(number)).write_text(str(number))
    with Path("/vol/large").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(2**20))
    large_volume.commit()


@app.function(volumes={"/vol": volume}, single_use_containers=True)
def begins_with_empty_volume() -> float:
    """Return the begin of the body, in a separate container with an empty Volume."""
    return time.time()


@app.function(volumes={"/vol": large_volume}, single_use_containers=True)
def begins_with_large_volume() -> float:
    """Return the same with the Volume of ``fill``."""
    return time.time()


@app.function(single_use_containers=True, max_containers=20)
def begins_and_stays(seconds: float) -> float:
    """Return the same, and keep the container busy for a while."""
    began = time.time()
    time.sleep(seconds)
    return began


@app.function(max_containers=10)
def stays(seconds: float) -> None:
    """Keep a container busy for a while."""
    time.sleep(seconds)


@app.function(max_containers=1, timeout=3600)
def waits(seconds: float) -> None:
    """Keep the only container busy, so later inputs are queued."""
    time.sleep(seconds)
