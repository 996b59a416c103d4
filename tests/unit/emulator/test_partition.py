"""One partition of a Queue: order, limits, and who waits."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modalflow.emulator.queues.partition import MAX_BYTES, MAX_ITEMS, Partition, PartitionFull, QueueItem


def partition() -> Partition:
    return Partition(itertools.count(1))


def values(items: list[QueueItem]) -> list[bytes]:
    return [item.value for item in items]


class PartitionMachine(RuleBasedStateMachine):
    """Without anyone waiting, a partition is a list that is taken from at its front."""

    def __init__(self) -> None:
        super().__init__()
        self.partition = partition()
        self.model: list[bytes] = []

    @rule(new=st.lists(st.binary(max_size=3), max_size=4))
    def put(self, new: list[bytes]) -> None:
        self.partition.put(new)
        self.model += new

    @rule(wanted=st.integers(1, 4))
    def take(self, wanted: int) -> None:
        assert values(self.partition.take(wanted)) == self.model[:wanted]
        del self.model[:wanted]

    @rule(wanted=st.integers(1, 4))
    def take_and_put_back(self, wanted: int) -> None:
        self.partition.put_back(self.partition.take(wanted))

    @rule()
    def clear(self) -> None:
        self.partition.clear()
        self.model.clear()

    @invariant()
    def holds_what_it_should(self) -> None:
        assert len(self.partition) == len(self.model)
        assert self.partition.idle == (not self.model)


TestPartition = PartitionMachine.TestCase


async def test_takers_are_served_in_the_order_they_came() -> None:
    """Three who wait get the items one by one, the first the first."""
    queue = partition()
    takers = [asyncio.create_task(queue.take_within(1, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    queue.put([b"1", b"2", b"3", b"4"])
    assert [values(await taker) for taker in takers] == [[b"1"], [b"2"], [b"3"]]
    assert values(queue.take(5)) == [b"4"]


async def test_a_taker_that_gave_up_takes_nothing() -> None:
    """An item that comes after a taker's time was over, or after it was cancelled, stays for others."""
    queue = partition()
    assert await queue.take_within(1, 0.01) == []
    cancelled = asyncio.create_task(queue.take_within(1, 5))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    queue.put([b"1"])
    assert values(queue.take(1)) == [b"1"]
    assert queue.idle


async def test_a_taker_cancelled_as_it_is_served_gives_the_item_back() -> None:
    """No item is lost between being assigned and being received: it goes back to the front."""
    queue = partition()
    cancelled = asyncio.create_task(queue.take_within(1, 5))
    await asyncio.sleep(0)
    queue.put([b"1", b"2"])
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    assert values(queue.take(5)) == [b"1", b"2"]


async def test_a_reader_sees_new_items_without_taking_them() -> None:
    """after() waits for an item with a higher number and leaves it where it is."""
    queue = partition()
    queue.put([b"1"])
    (first,) = await queue.after(0, 10, 0)
    waiting = asyncio.create_task(queue.after(first.number, 10, 5))
    await asyncio.sleep(0)
    queue.put([b"2"])
    assert values(await waiting) == [b"2"]
    assert len(queue) == 2


async def test_closing_fails_those_who_wait() -> None:
    """Who waits on a queue that is deleted hears of it at once."""
    queue = partition()
    waiting = asyncio.create_task(queue.take_within(1, 60))
    await asyncio.sleep(0)
    queue.close(LookupError("deleted"))
    with pytest.raises(LookupError):
        await waiting


def test_limits_are_for_the_whole_put() -> None:
    """What does not fit, by number or by size, is refused as a whole; what just fits is not."""
    queue = partition()
    queue.put([b""] * (MAX_ITEMS - 1))
    with pytest.raises(PartitionFull, match=str(MAX_ITEMS)):
        queue.put([b"", b""])
    queue.put([b""])
    assert len(queue) == MAX_ITEMS
    queue.clear()
    queue.put([bytes(MAX_BYTES)])
    with pytest.raises(PartitionFull, match="bytes"):
        queue.put([b"x"])
    queue.take(1)
    queue.put([b"x"])


def test_items_expire_with_their_partition() -> None:
    """At its time, and not before, a partition forgets its items."""
    queue = partition()
    queue.put([b"1"])
    queue.expires_at = 10.0
    queue.expire(9.9)
    assert len(queue) == 1
    queue.expire(10.0)
    assert len(queue) == 0
