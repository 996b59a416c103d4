"""Look-ups of silent calls are bounded, however many run."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.sweeper import CHECKS_PER_SECOND
from modalflow.executor.modal_api.call_status import PENDING, RETURNED, CallStatus
from modalflow.executor.wiring import Wiring
from modalflow.protocol.messages import Entry, Kind, State
from tests.wired import submitted, wired


@dataclasses.dataclass
class PlayedApi:
    """A Modal that has every function call running, and notes what it is asked."""

    asked: list[str] = dataclasses.field(default_factory=list)

    async def call_status(self, function_call_id: str) -> CallStatus:
        self.asked.append("status")
        return PENDING

    async def entry(self, work_id: str) -> Entry | None:
        self.asked.append("entry")
        return Entry(work_id, State.RUNNING, f"fc-{work_id}", "ta-1", "", started_at=time.time())


def silent(wiring: Wiring, work_id: str, since: float) -> Call:
    call = submitted(wiring, work_id, kind=Kind.COMMAND)
    call.touch(since)
    return call


async def test_looking_up_what_runs_costs_no_more_the_more_runs() -> None:
    """Of two thousand silent calls one sweep looks up its share, beginning with those that were silent for longest. For
    those that it knows to run it asks Modal alone."""
    api = PlayedApi()
    wiring = wired(api, sweep_interval=1.0)
    for n in range(2000):
        silent(wiring, str(n), -1000.0 - n)
    await wiring.sweeper.sweep()
    assert api.asked.count("status") == CHECKS_PER_SECOND
    assert api.asked.count("entry") == CHECKS_PER_SECOND
    looked_up = {call.work_id for call in wiring.calls if call.checks}
    assert looked_up == {str(n) for n in range(2000 - CHECKS_PER_SECOND, 2000)}
    api.asked.clear()
    for call in wiring.calls:
        if not call.checks:
            wiring.calls.discard(call)
        call.touch(-5000.0)
    await wiring.sweeper.sweep()
    assert api.asked == ["status"] * CHECKS_PER_SECOND


async def test_what_ran_for_too_long_is_looked_up_first() -> None:
    """However many are silent, a task's time limit does not wait for its turn among them."""
    wiring = wired(PlayedApi(), sweep_interval=1.0)
    for n in range(1000):
        silent(wiring, str(n), -1000.0)
    late = submitted(wiring, "late", kind=Kind.COMMAND)
    entry = Entry("late", State.RUNNING, "fc-late", "ta-1", "")
    late.claimed(entry, now=time.monotonic(), due_at=time.monotonic() - 1, partition="")
    await wiring.sweeper.sweep()
    assert late.checks == 1


async def test_a_decision_about_another_phase_is_dropped() -> None:
    """If a call goes on while it is looked up, what was decided about it is out of date: it is looked up again."""

    class Slow(PlayedApi):
        async def call_status(self, function_call_id: str) -> CallStatus:
            return RETURNED

        async def entry(self, work_id: str) -> Entry | None:
            started.set()
            await go_on.wait()
            return None

    started, go_on = asyncio.Event(), asyncio.Event()
    wiring = wired(Slow())
    call = submitted(wiring, "w", kind=Kind.COMMAND)
    look_up = asyncio.create_task(wiring.sweeper.check(call))
    await started.wait()
    call.lost(0.0)
    go_on.set()
    await look_up
    assert call.phase is Phase.QUEUED
