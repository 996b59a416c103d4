"""Work that a container could not begin, because Airflow's API was away, is begun anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from modalflow.executor.lifecycle.airflow_state import Answer, Enquiries, Question, Standing
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.lifecycle.decision import Policy
from modalflow.executor.lifecycle.start_retry import Unbegun
from modalflow.executor.lifecycle.tracker import Link, Tracker
from modalflow.executor.mailbox import NewsKind, Order
from modalflow.executor.modal_api.modal_api import Remote
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Entry, Kind, State, Submission
from modalflow.reasons import Cause


@dataclass
class Airflow:
    """A database with one answer."""

    standing: Standing

    def look(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        return {question.work_id: Answer(self.standing) for question in questions}


@dataclass
class Modal:
    """A ledger that lets an entry be taken, at the second time of asking."""

    entries: dict[str, Entry] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    failures: int = 1

    async def take_entry(self, work_id: str) -> Entry | None:
        if self.failures:
            self.failures -= 1
            raise OSError("no network")
        self.taken.append(work_id)
        return self.entries.pop(work_id, None)

    async def claim(self, entry: Entry) -> bool:
        return self.entries.setdefault(entry.work_id, entry) is entry


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class World:
    """A tracker with one call, which a container had."""

    def __init__(self, standing: Standing | None) -> None:
        self.modal = Modal()
        self.submitted: list[Call] = []
        self.said: list[str] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.enquiries = Enquiries(Airflow(standing) if standing else None)
        self.tracker = Tracker(
            "here", Policy(60, 3, False), Link(cast(Remote, self.modal)), self.run, enquiries=self.enquiries
        )
        self.tracker.submit = self.submitted.append
        self.tracker.say = lambda path, text, level: self.said.append(text)
        self.tracker.begin_anew = Unbegun(self.tracker, self.enquiries, pause=0.001).take
        submission = Submission("w", Kind.WORKLOAD, "log", "", "the task")
        self.call = Call.accepted(Order("key", submission, Resources(), None, None), time.monotonic())
        self.call.placed(submission, Resources())
        self.call.spawning()
        self.call.submitted("fc-1", time.monotonic())
        self.tracker.calls.add(self.call)

    def run(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def ends(self, function_call_id: str = "fc-1", cause: str = Cause.API_UNREACHABLE.value) -> None:
        entry = Entry("w", State.FAILED, function_call_id, "ta-1", "o", "the task", "here", reason="Away.", cause=cause)
        self.tracker.told(entry, "here")

    def kinds(self) -> list[NewsKind]:
        return [news.kind for news in self.tracker.news]


async def test_it_is_submitted_again_once_its_claim_is_gone() -> None:
    """Same work id, no outcome told, the reason in its log; what is still heard of the first function call is old."""
    world = World(Standing.WAITING)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(world.enquiries.run())
        world.ends()
        world.ends()
        await until(lambda: world.submitted)
        world.ends()
        loop.cancel()
    assert world.submitted == [world.call] and world.modal.taken == ["w"]
    assert world.kinds() == [] and not world.call.settled and not world.call.may_start_again
    assert len(world.said) == 1 and "without using a retry" in world.said[0]


async def test_a_claim_that_has_come_in_its_place_stays() -> None:
    """Another executor, which had adopted the work, has submitted it again, and it runs: that one is followed."""
    world = World(Standing.WAITING)
    running = Entry("w", State.RUNNING, "fc-2", "ta-2", "o", "the task", "there")
    world.modal.entries["w"] = running
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(world.enquiries.run())
        world.ends()
        await until(lambda: world.call.function_call_id == "fc-2")
        loop.cancel()
    assert world.modal.entries == {"w": running}
    assert world.submitted == [] and not world.call.settled


async def test_a_task_that_has_begun_after_all_fails() -> None:
    """The answer to its start was lost: it may have had effects, so its retries decide."""
    world = World(Standing.RUNNING)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(world.enquiries.run())
        world.ends()
        await until(lambda: world.kinds())
        loop.cancel()
    assert world.kinds() == [NewsKind.FAILED] and world.submitted == []


@pytest.mark.parametrize("cause", [Cause.API_UNREACHABLE, Cause.CONTAINER_LOST])
async def test_without_a_database_it_fails(cause: Cause) -> None:
    """Nobody can say that it has not begun."""
    world = World(None)
    world.ends(cause=cause.value)
    assert world.kinds() == [NewsKind.FAILED] and world.submitted == []
