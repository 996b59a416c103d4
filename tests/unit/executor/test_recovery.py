"""Work that a container could not begin, because Airflow's API was away, is submitted again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQuery
from modalflow.executor.lifecycle.call import Phase
from modalflow.executor.mailbox import UpdateKind
from modalflow.protocol.messages import Entry, State
from modalflow.reasons import Cause
from modalflow.support import backoff
from tests.wired import kinds, notes, submitted, wired


@dataclass
class Airflow:
    """A database with one answer."""

    state: AirflowState

    def renew_queued(self, queries: Sequence[StateQuery]) -> None: ...

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        return {query.work_id: StateAnswer(self.state) for query in queries}


@dataclass
class PlayedApi:
    """A ledger from which an entry can be taken at the second attempt."""

    entries: dict[str, Entry] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    failures: int = 1
    lost_claims: int = 0
    is_late: bool = False
    """Whether another claim arrives after the look at the ledger, and before the removal."""

    async def entry(self, work_id: str) -> Entry | None:
        if self.failures:
            self.failures -= 1
            raise OSError("no network")
        return None if self.is_late else self.entries.get(work_id)

    async def take_entry(self, work_id: str) -> Entry | None:
        self.taken.append(work_id)
        return self.entries.pop(work_id, None)

    async def claim(self, entry: Entry) -> bool:
        if self.lost_claims:
            self.lost_claims -= 1
            raise OSError("no network")
        return self.entries.setdefault(entry.work_id, entry) is entry


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class World:
    """The engine's objects with one call, which a container had."""

    def __init__(self, state: AirflowState | None) -> None:
        self.api = PlayedApi()
        self.wiring = wired(self.api, database=Airflow(state) if state else None)
        self.call = submitted(self.wiring, "w", "fc-1")

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Let Airflow's database answer meanwhile."""
        loop = asyncio.create_task(self.wiring.queries.run())
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    def ends(self, function_call_id: str = "fc-1", cause: str = Cause.API_UNREACHABLE.value) -> None:
        partition = self.wiring.partition
        entry = Entry("w", State.FAILED, function_call_id, "ta-1", "o", "w", partition, reason="Away.", cause=cause)
        self.wiring.tracker.on_event(entry, partition)


@pytest.fixture(autouse=True)
def short_pause() -> Iterator[None]:
    with backoff.testing(0.001):
        yield


async def test_it_is_submitted_again_once_its_claim_is_gone() -> None:
    """Same work id, no outcome reported, the reason in its log; later events of the first function call are ignored."""
    world = World(AirflowState.WAITING)
    async with world.asking():
        world.ends()
        world.ends()
        await until(lambda: world.call.phase is Phase.QUEUED)
        world.ends()
    assert world.wiring.submitter.waiting == 1 and world.api.taken == ["w"]
    assert kinds(world.wiring) == [] and world.call.phase is Phase.QUEUED and not world.call.may_start_again
    [(path, text)] = notes(world.wiring)
    assert path == "w" and "costs it no retry" in text


async def test_a_claim_that_has_come_in_its_place_stays() -> None:
    """Another executor, which had adopted the work, has submitted it again, and it runs: that one is followed."""
    world = World(AirflowState.WAITING)
    running = Entry("w", State.RUNNING, "fc-2", "ta-2", "o", "w", "there")
    world.api.entries["w"] = running
    async with world.asking():
        world.ends()
        await until(lambda: world.call.function_call_id == "fc-2")
    assert world.api.entries == {"w": running} and world.api.taken == []
    assert world.call.phase is Phase.WAITING and world.wiring.submitter.waiting == 0


async def test_a_claim_removed_by_chance_is_written_back() -> None:
    """It arrives after the look at the ledger, and Modal is away when it is written back: the work runs once."""
    world = World(AirflowState.WAITING)
    running = Entry("w", State.RUNNING, "fc-2", "ta-2", "o", "w", "there")
    world.api.entries["w"], world.api.is_late, world.api.lost_claims = running, True, 2
    async with world.asking():
        world.ends()
        await until(lambda: world.call.function_call_id == "fc-2")
        await until(lambda: world.api.entries)
    assert world.api.entries == {"w": running} and world.api.taken == ["w"] and world.api.lost_claims == 0
    assert world.call.phase is Phase.WAITING and world.wiring.submitter.waiting == 0


async def test_a_task_that_has_begun_after_all_fails() -> None:
    """The answer to its start was lost: it may have had effects, so its retries decide."""
    world = World(AirflowState.RUNNING)
    async with world.asking():
        world.ends()
        await until(lambda: kinds(world.wiring))
    assert kinds(world.wiring) == [UpdateKind.FAILED] and world.wiring.submitter.waiting == 0


@pytest.mark.parametrize("cause", [Cause.API_UNREACHABLE, Cause.CONTAINER_LOST])
async def test_without_a_database_it_fails(cause: Cause) -> None:
    """No one can say that it has not begun."""
    world = World(None)
    world.ends(cause=cause.value)
    assert kinds(world.wiring) == [UpdateKind.FAILED] and world.wiring.submitter.waiting == 0


async def test_a_thread_that_ends_meanwhile_strands_nothing() -> None:
    """If the engine's thread ends before the claim is removed, the next look-up finds the entry and starts again."""
    world = World(AirflowState.WAITING)
    async with world.asking():
        world.api.failures = 1_000_000
        world.ends()
        await until(lambda: world.call.phase is Phase.RETRYING)
        world.wiring.submitter.start()
        assert (world.call.phase, world.call.function_call_id) == (Phase.WAITING, "fc-1")
        world.api.failures = 0
        world.ends()
        await until(lambda: world.api.taken)


async def test_a_question_outlives_the_thread_that_asked_it() -> None:
    """A failure that waits for Airflow's database is reported, even if the thread that asked has ended."""
    world = World(AirflowState.WAITING)
    world.ends(cause=Cause.CONTAINER_LOST.value)
    asked = asyncio.Event()

    async def never(queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(world.wiring.queries, "_answers", never)
        async with world.asking():
            await asked.wait()
    async with world.asking():
        await until(lambda: kinds(world.wiring))
    assert kinds(world.wiring) == [UpdateKind.FAILED]
