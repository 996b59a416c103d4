"""What the engine does on the side is bounded, however much comes at once."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

from modalflow.executor.lifecycle.bounded_tasks import Chores
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import PENDING, Policy, Verdict
from modalflow.executor.lifecycle.sweeper import LOOKS_PER_SECOND, Sweeper
from modalflow.executor.lifecycle.tracker import Link, Tracker
from modalflow.protocol.messages import Entry, Kind, State


@dataclasses.dataclass
class PlayedRemote:
    """A Modal that has every function call running, and counts what it is asked."""

    asked: list[str] = dataclasses.field(default_factory=list)
    under_way: int = 0
    most: int = 0

    async def _answer(self, what: str) -> None:
        self.asked.append(what)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1

    async def forget(self, work_id: str) -> None:
        await self._answer("forget")

    async def verdict(self, function_call_id: str) -> Verdict:
        await self._answer("verdict")
        return PENDING

    async def entry(self, work_id: str) -> Entry:
        await self._answer("entry")
        return Entry(work_id, State.RUNNING, f"fc-{work_id}", "ta-1", "", started_at=time.time())


def tracker(remote: PlayedRemote, chores: Chores) -> Tracker:
    played: Any = remote
    return Tracker("here", Policy(3600.0, 3, False), Link(played), chores.put)


def running(work_id: str) -> Call:
    return Call(
        key=work_id,
        work_id=work_id,
        log_path="",
        label=work_id,
        kind=Kind.COMMAND,
        accepted_at=0.0,
        updated_at=-1000.0,
        phase=Phase.WAITING,
        function_call_id=f"fc-{work_id}",
    )


async def test_burst_of_outcomes_is_forgotten_in_turn() -> None:
    """Ten thousand delivered outcomes are ten thousand RPCs, but never more than a few at once."""
    remote = PlayedRemote()
    chores = Chores(32, asyncio.get_running_loop().create_task)
    tracker(remote, chores).forget([str(n) for n in range(10_000)])
    async with asyncio.timeout(30):
        while len(chores):
            await asyncio.sleep(0.001)
    assert len(remote.asked) == 10_000
    assert remote.most == 32


async def test_failing_chore_makes_room_for_the_next() -> None:
    """One that fails, or is cancelled, takes nobody's place for ever."""
    done = []

    async def bad() -> None:
        raise OSError("away")

    async def good() -> None:
        done.append(1)

    chores = Chores(1, lambda coroutine: asyncio.ensure_future(_quietly(coroutine)))
    chores.put(bad())
    chores.put(good())
    async with asyncio.timeout(10):
        while len(chores):
            await asyncio.sleep(0)
    assert done == [1]


async def _quietly(coroutine: Any) -> None:
    await asyncio.gather(coroutine, return_exceptions=True)


async def test_looking_at_what_runs_costs_no_more_the_more_runs() -> None:
    """Of two thousand silent calls one sweep looks at its share, those first that were silent for longest; and of those
    that it knows to run it asks Modal alone."""
    remote = PlayedRemote()
    table = tracker(remote, Chores(8, asyncio.get_running_loop().create_task))
    for n in range(2000):
        call = running(str(n))
        call.heard(call.updated_at - n)
        table.calls.add(call)
    sweeper = Sweeper(table, interval=1.0)
    await sweeper.sweep()
    assert remote.asked.count("verdict") == LOOKS_PER_SECOND
    assert remote.asked.count("entry") == LOOKS_PER_SECOND
    looked = {call.work_id for call in table.calls if call.checks}
    assert looked == {str(n) for n in range(2000 - LOOKS_PER_SECOND, 2000)}
    remote.asked.clear()
    for call in list(table.calls):
        if not call.checks:
            table.calls.discard(call)
        call.heard(-5000.0)
    await sweeper.sweep()
    assert remote.asked == ["verdict"] * LOOKS_PER_SECOND


async def test_what_ran_for_too_long_is_looked_at_first() -> None:
    """However many are silent, a task's time limit does not wait for its turn among them."""
    remote = PlayedRemote()
    table = tracker(remote, Chores(8, asyncio.get_running_loop().create_task))
    for n in range(1000):
        table.calls.add(running(str(n)))
    late = running("late")
    entry = Entry("late", State.RUNNING, "fc-late", "ta-1", "")
    late.claimed(entry, now=time.monotonic(), due_at=time.monotonic() - 1, partition="")
    table.calls.add(late)
    await Sweeper(table, interval=1.0).sweep()
    assert late.checks == 1
