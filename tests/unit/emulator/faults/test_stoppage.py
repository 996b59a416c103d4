"""Stops of the world: nothing passes until the last one has ended."""

from __future__ import annotations

import asyncio

from modalflow.emulator.faults.stoppage import Stoppage


async def test_nothing_passes_while_the_world_is_stopped() -> None:
    """Callers that wait go on once every stop has ended."""
    stoppage = Stoppage()
    stoppage.begin()
    stoppage.begin()
    passing = asyncio.ensure_future(stoppage.passage())
    for _ in range(2):
        done, _ = await asyncio.wait({passing}, timeout=0.01)
        assert not done
        assert stoppage.is_active
        stoppage.end()
    await asyncio.wait_for(passing, 1.0)
    assert not stoppage.is_active


async def test_everything_passes_otherwise() -> None:
    """Without a stop, or after one, a caller does not wait."""
    stoppage = Stoppage()
    await stoppage.passage()
    stoppage.begin()
    stoppage.end()
    await stoppage.passage()
