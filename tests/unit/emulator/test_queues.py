"""The Queue service: repeated calls, expiry, idle partitions; and all of it over restarts."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from modal_proto import api_pb2

from modalflow.emulator.queues import queues as module
from modalflow.emulator.queues.queues import REPEAT_WITHIN_SECONDS, Queues
from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from tests.support import Clock, killed


def caller(key: str | None = None) -> Caller:
    return Caller(container_id=None, client_version="", idempotency_key=key)


async def made(clock: Clock, journal: Journal | None = None) -> tuple[Queues, str]:
    journal = journal or Journal()
    queues = Queues(Environments(journal), journal, clock=clock)
    created = await queues.QueueGetOrCreate(
        api_pb2.QueueGetOrCreateRequest(
            deployment_name="q", object_creation_type=api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        ),
        caller(),
    )
    return queues, created.queue_id


async def put(queues: Queues, queue_id: str, *items: bytes, partition: bytes = b"", ttl: int = 0) -> None:
    request = api_pb2.QueuePutRequest(
        queue_id=queue_id, values=items, partition_key=partition, partition_ttl_seconds=ttl
    )
    await queues.QueuePut(request, caller())


async def get(queues: Queues, queue_id: str, key: str | None, wanted: int = 1) -> list[bytes]:
    answer = await queues.QueueGet(api_pb2.QueueGetRequest(queue_id=queue_id, n_values=wanted), caller(key))
    return list(answer.values)


async def test_a_repeated_get_is_answered_alike_for_a_while() -> None:
    """A call whose answer got lost gets the same items again; a new call, or a late one, gets the next ones."""
    clock = Clock(1_000_000.0)
    queues, queue_id = await made(clock)
    await put(queues, queue_id, b"1", b"2", b"3")

    assert await get(queues, queue_id, "key") == [b"1"]
    assert await get(queues, queue_id, "key") == [b"1"]
    assert await get(queues, queue_id, "other") == [b"2"]
    clock.now += REPEAT_WITHIN_SECONDS + 1
    assert await get(queues, queue_id, "key") == [b"3"]


async def test_an_empty_answer_is_not_remembered() -> None:
    """A get that found nothing does not keep a later try with the same key from finding something."""
    queues, queue_id = await made(Clock(1_000_000.0))
    assert await get(queues, queue_id, "key") == []
    await put(queues, queue_id, b"1")
    assert await get(queues, queue_id, "key") == [b"1"]


async def test_each_put_renews_the_time_to_live() -> None:
    """A partition lives until its time to live after its last put, with all its items."""
    clock = Clock(1_000_000.0)
    queues, queue_id = await made(clock)
    await put(queues, queue_id, b"1", ttl=10)
    clock.now += 9
    await put(queues, queue_id, b"2", ttl=10)
    clock.now += 9
    length = await queues.QueueLen(api_pb2.QueueLenRequest(queue_id=queue_id), caller())
    assert length.len == 2
    clock.now += 1
    length = await queues.QueueLen(api_pb2.QueueLenRequest(queue_id=queue_id), caller())
    assert length.len == 0


async def test_partitions_that_nobody_uses_are_forgotten() -> None:
    """A partition per request, as a relay makes them, costs nothing once the request is over."""
    queues, queue_id = await made(Clock(1_000_000.0))
    for n in range(50):
        partition = b"%d" % n
        await put(queues, queue_id, b"x", partition=partition)
        request = api_pb2.QueueGetRequest(queue_id=queue_id, n_values=1, partition_key=partition)
        await queues.QueueGet(request, caller())
    assert not queues._queues.get(queue_id).partitions


async def test_entry_numbers_never_start_again() -> None:
    """A reader's mark stays valid although the partition was empty, and forgotten, in between."""
    queues, queue_id = await made(Clock(1_000_000.0))
    await put(queues, queue_id, b"1")
    request = api_pb2.QueueNextItemsRequest(queue_id=queue_id)
    (first,) = (await queues.QueueNextItems(request, caller())).items
    assert await get(queues, queue_id, None) == [b"1"]
    await put(queues, queue_id, b"2")
    request.last_entry_id = first.entry_id
    (second,) = (await queues.QueueNextItems(request, caller())).items
    assert second.value == b"2"


async def test_a_queue_has_so_many_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One partition more than 100,000 with items is refused; one that was emptied makes room."""
    assert module.MAX_PARTITIONS == 100_000
    monkeypatch.setattr(module, "MAX_PARTITIONS", 3)
    queues, queue_id = await made(Clock(1_000_000.0))
    queues._queues.get(queue_id).tidy_at = 3
    for name in (b"1", b"2", b"3"):
        await put(queues, queue_id, b"x", partition=name)
    with pytest.raises(GRPCError, match="3 partitions") as refused:
        await put(queues, queue_id, b"x", partition=b"4")
    assert refused.value.status is Status.RESOURCE_EXHAUSTED
    await queues.QueueClear(api_pb2.QueueClearRequest(queue_id=queue_id, partition_key=b"1"), caller())
    await put(queues, queue_id, b"x", partition=b"4")


async def test_the_time_to_live_is_a_day_unless_told() -> None:
    """A partition expires 24 hours after its last put."""
    clock = Clock(1_000_000.0)
    queues, queue_id = await made(clock)
    await put(queues, queue_id, b"1", b"2")
    clock.now += 24 * 3600 - 1
    assert await get(queues, queue_id, None) == [b"1"]
    clock.now += 1
    assert await get(queues, queue_id, None) == []


async def test_what_makes_no_sense_is_refused() -> None:
    """Negative numbers and a mark that no item came with are INVALID_ARGUMENT, which the SDK makes InvalidError of."""
    queues, queue_id = await made(Clock(1_000_000.0))
    for wrong in (
        put(queues, queue_id, b"1", ttl=-1),
        get(queues, queue_id, None, wanted=-1),
        queues.QueueNextItems(api_pb2.QueueNextItemsRequest(queue_id=queue_id, last_entry_id="x"), caller()),
    ):
        with pytest.raises(GRPCError) as refused:
            await wrong
        assert refused.value.status is Status.INVALID_ARGUMENT


PARTITIONS = st.sampled_from([b"", b"p"])
TTL = 100


class QueueMachine(RuleBasedStateMachine):
    """Two partitions against two lists, over kills: nothing is lost, nothing that was taken comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1_000_000.0)
        self.parent = tempfile.TemporaryDirectory()
        self.folder = Path(self.parent.name, "first")
        self.folder.mkdir()
        self.loop = asyncio.new_event_loop()
        self.journal = Journal(self.folder)
        self.queues, self.queue_id = self.loop.run_until_complete(made(self.clock, self.journal))
        self.model: dict[bytes, list[bytes]] = {b"": [], b"p": []}
        self.until = {b"": 0.0, b"p": 0.0}
        self.calls = 0
        self.last: tuple[bytes, list[bytes], float] = (b"", [], 0.0)

    def teardown(self) -> None:
        self.loop.close()
        self.journal.close()
        self.parent.cleanup()

    def _get(self, key: str, partition: bytes, wanted: int) -> list[bytes]:
        request = api_pb2.QueueGetRequest(queue_id=self.queue_id, n_values=wanted, partition_key=partition)

        async def get() -> list[bytes]:
            answer = await self.queues.QueueGet(request, caller(key))
            await self.journal.settled()
            return list(answer.values)

        return self.loop.run_until_complete(get())

    @rule(partition=PARTITIONS, items=st.lists(st.binary(max_size=2), max_size=3))
    def put(self, partition: bytes, items: list[bytes]) -> None:
        async def send() -> None:
            await put(self.queues, self.queue_id, *items, partition=partition, ttl=TTL)
            await self.journal.settled()

        self.loop.run_until_complete(send())
        self.model[partition] += items
        self.until[partition] = self.clock.now + TTL

    @rule(partition=PARTITIONS, wanted=st.integers(1, 3))
    def get(self, partition: bytes, wanted: int) -> None:
        self.calls += 1
        expected = self.model[partition][:wanted]
        assert self._get(str(self.calls), partition, wanted) == expected
        del self.model[partition][:wanted]
        if expected:
            self.last = partition, expected, self.clock.now

    @rule()
    def repeat(self) -> None:
        partition, delivered, when = self.last
        if delivered and self.clock.now - when <= REPEAT_WITHIN_SECONDS:
            key = next(key for key, (values, _) in reversed(self.queues._deliveries._values.items()))
            assert self._get(key, partition, len(delivered)) == delivered

    @rule(partition=PARTITIONS)
    def clear(self, partition: bytes) -> None:
        async def send() -> None:
            request = api_pb2.QueueClearRequest(queue_id=self.queue_id, partition_key=partition)
            await self.queues.QueueClear(request, caller())
            await self.journal.settled()

        self.loop.run_until_complete(send())
        self.model[partition].clear()

    @rule(seconds=st.sampled_from([1, 70]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        for partition, until in self.until.items():
            if until <= self.clock.now:
                self.model[partition].clear()

    @rule()
    def kill(self) -> None:
        before, self.folder = self.journal, killed(self.folder)
        self.journal = Journal(self.folder)
        before.close()
        self.queues = Queues(Environments(self.journal), self.journal, clock=self.clock)

    @invariant()
    def holds_what_it_should(self) -> None:
        async def length(partition: bytes) -> int:
            request = api_pb2.QueueLenRequest(queue_id=self.queue_id, partition_key=partition)
            return (await self.queues.QueueLen(request, caller())).len

        for partition, items in self.model.items():
            assert self.loop.run_until_complete(length(partition)) == len(items)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


async def test_an_item_on_its_way_to_a_taker_survives_a_kill(tmp_path: Path) -> None:
    """An item whose put was acknowledged, assigned to a waiting taker that did not get it yet, is not lost."""
    folder = tmp_path / "first"
    folder.mkdir()
    journal = Journal(folder)
    queues, queue_id = await made(Clock(1_000_000.0), journal)
    request = api_pb2.QueueGetRequest(queue_id=queue_id, n_values=1, timeout=30)
    taker = asyncio.create_task(queues.QueueGet(request, caller("key")))
    await asyncio.sleep(0)
    await put(queues, queue_id, b"1")
    journal.flush()
    copy = killed(folder)
    assert list((await taker).values) == [b"1"]
    await journal.settled()
    later = killed(folder)
    journal.close()

    for state, key, expected in ((copy, "key", [b"1"]), (later, None, []), (later, "key", [b"1"])):
        journal = Journal(state)
        assert await get(Queues(Environments(journal), journal, clock=Clock(1_000_001.0)), queue_id, key) == expected
        journal.close()


async def test_entry_numbers_do_not_start_again_after_a_restart(tmp_path: Path) -> None:
    """A reader's mark stays valid over a restart, although the queue was empty in it."""
    journal = Journal(tmp_path)
    queues, queue_id = await made(Clock(1_000_000.0), journal)
    await put(queues, queue_id, b"1")
    (first,) = (await queues.QueueNextItems(api_pb2.QueueNextItemsRequest(queue_id=queue_id), caller())).items
    await get(queues, queue_id, None)
    await journal.settled()
    journal.close()
    journal = Journal(tmp_path)
    queues = Queues(Environments(journal), journal)
    await put(queues, queue_id, b"2")
    request = api_pb2.QueueNextItemsRequest(queue_id=queue_id, last_entry_id=first.entry_id)
    (second,) = (await queues.QueueNextItems(request, caller())).items
    assert second.value == b"2"
    journal.close()
