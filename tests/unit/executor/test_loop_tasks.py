"""What the engine does on the side is bounded, however much comes at once."""

from __future__ import annotations

import asyncio

from modalflow.executor.loop_tasks import BoundedTasks, LoopTasks
from tests.wired import wired


class PlayedApi:
    """Counts what it is asked, and how much of it at once."""

    def __init__(self) -> None:
        self.asked = self.under_way = self.most = 0

    async def forget(self, work_id: str) -> None:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1


async def test_burst_of_outcomes_is_forgotten_in_turn() -> None:
    """Ten thousand delivered outcomes are ten thousand RPCs, but never more than a few at once."""
    api = PlayedApi()
    wiring = wired(api)
    wiring.claims.forget([str(n) for n in range(10_000)])
    async with asyncio.timeout(60):
        while len(wiring.removals):
            await asyncio.sleep(0.001)
    assert api.asked == 10_000
    assert api.most == 16


async def test_a_failing_task_makes_room_for_the_next() -> None:
    """A task that fails, or is cancelled, does not keep its place forever."""
    done = []

    async def bad() -> None:
        raise OSError("away")

    async def good() -> None:
        done.append(1)

    tasks = BoundedTasks(1, LoopTasks(asyncio.get_running_loop()))
    tasks.spawn(bad())
    tasks.spawn(good())
    async with asyncio.timeout(10):
        while len(tasks):
            await asyncio.sleep(0)
    assert done == [1]
