"""Modal Queues, through the SDK."""

from __future__ import annotations

import concurrent.futures
import queue
import time

import modal
import pytest
from modal.exception import AlreadyExistsError, InvalidError, NotFoundError, RequestSizeError

from tests.support import wait_until


def test_items_come_out_in_the_order_they_went_in(queue_: modal.Queue) -> None:
    """First in, first out; get_many returns up to as many as were asked for."""
    queue_.put("a")
    queue_.put_many([1, 2, 3])

    assert queue_.len() == 4
    assert queue_.get() == "a"
    assert queue_.get_many(2) == [1, 2]
    assert queue_.get_many(10) == [3]
    assert queue_.len() == 0


def test_an_empty_queue_says_so(queue_: modal.Queue) -> None:
    """Without blocking there is no item; with a timeout Empty is raised, not before it is over."""
    assert queue_.get(block=False) is None
    assert queue_.get_many(3, block=False) == []
    started = time.monotonic()
    with pytest.raises(queue.Empty):
        queue_.get(timeout=0.3)
    assert 0.25 < time.monotonic() - started < 5


def test_partitions_are_independent(queue_: modal.Queue) -> None:
    """What is in one partition is in no other, and the total counts them all."""
    queue_.put("default")
    queue_.put("one", partition="1")
    queue_.put_many(["two", "zwei"], partition="2")

    assert queue_.len(partition="2") == 2
    assert queue_.len() == 1
    assert queue_.len(total=True) == 4
    assert queue_.get(partition="1") == "one"
    assert queue_.get(partition="1", block=False) is None
    queue_.clear(partition="2")
    assert queue_.len(total=True) == 1
    queue_.clear(all=True)
    assert queue_.len(total=True) == 0


def test_a_put_wakes_who_waits(queue_: modal.Queue) -> None:
    """A blocked get returns as soon as an item is put, long before its timeout."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(queue_.get, timeout=30)
        # Until it waits there is nothing to see of it; an item put before that would not wake it, but serve it.
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(timeout=0.3)
        put_at = time.monotonic()
        queue_.put("wake up")
        assert waiting.result(timeout=10) == "wake up"
    assert time.monotonic() - put_at < 5


def test_every_item_goes_to_one_taker(queue_: modal.Queue) -> None:
    """With many takers no item is lost and none is delivered twice."""
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        takers = [threads.submit(queue_.get_many, 5, timeout=20) for _ in range(8)]
        queue_.put_many(list(range(100)))
        taken = [item for taker in takers for item in taker.result()]
        rest = queue_.get_many(100)
    assert sorted(taken + rest) == list(range(100))


def test_iterate_reads_without_taking(queue_: modal.Queue) -> None:
    """Iterating shows the items in order, also those that come while it waits, and leaves them."""
    queue_.put_many([1, 2, 3])

    assert list(queue_.iterate()) == [1, 2, 3]
    seen = []
    for item in queue_.iterate(item_poll_timeout=1):
        seen.append(item)
        if item == 3:
            queue_.put(4)
    assert seen == [1, 2, 3, 4]
    assert queue_.len() == 4


def test_iterate_goes_on_after_items_were_taken(queue_: modal.Queue) -> None:
    """An iterator whose last item is gone goes on with the ones after it."""
    queue_.put_many([1, 2])
    seen = []
    for item in queue_.iterate(item_poll_timeout=1):
        seen.append(item)
        if item == 2:
            queue_.get_many(2)
            queue_.put(3)
    assert seen == [1, 2, 3]


def test_a_full_partition_refuses(queue_: modal.Queue) -> None:
    """A partition holds 5,000 items: what does not fit is refused as a whole, until something is taken."""
    queue_.put_many([0] * 4_999)
    with pytest.raises(queue.Full):
        queue_.put_many([1, 1], block=False)
    assert queue_.len() == 4_999
    queue_.put(1, block=False)
    with pytest.raises(queue.Full):
        queue_.put(2, timeout=0.5)
    queue_.get()
    queue_.put(2, block=False)


def test_a_blocked_put_goes_through_once_there_is_room(queue_: modal.Queue) -> None:
    """A put that waits for room succeeds after a get, and puts its item once."""
    queue_.put_many([0] * 5_000)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        putting = threads.submit(queue_.put, "late", timeout=30)
        queue_.get_many(100)
        putting.result(timeout=30)
    items = queue_.get_many(5_000)
    assert len(items) == 4_901 and items[-1] == "late"


def test_an_item_has_a_limit(queue_: modal.Queue) -> None:
    """An item above 1 MiB is RequestSizeError; more items in one put than a partition holds are refused at once."""
    with pytest.raises(RequestSizeError):
        queue_.put(b"x" * (1024 * 1024 + 1))
    with pytest.raises(RequestSizeError):
        queue_.put_many([1, b"x" * (1024 * 1024 + 1)], block=False)
    with pytest.raises(InvalidError, match="5001 items"):
        queue_.put_many([0] * 5_001)
    assert queue_.len() == 0


def test_a_partition_key_has_a_limit(queue_: modal.Queue) -> None:
    """A key of 64 bytes is fine, one of 65 is InvalidError."""
    queue_.put(1, partition="k" * 64)
    for key in ("k" * 65, "é" * 33, ""):
        with pytest.raises(InvalidError, match="partition key"):
            queue_.put(1, partition=key)


def test_a_partition_expires(queue_: modal.Queue) -> None:
    """Items are gone when the time to live of their partition is over, and only theirs."""
    queue_.put("short", partition="short", partition_ttl=1)
    queue_.put("long", partition="long")
    wait_until(lambda: queue_.len(partition="short") == 0, 10, "the partition to expire")
    assert queue_.get(partition="short", block=False) is None
    assert queue_.len(partition="long") == 1


def test_creating_deleting_and_listing(client: modal.Client, name: str) -> None:
    """A created Queue is listed; creating it again fails; a deleted one is gone for who holds it, and who waits."""
    modal.Queue.objects.create(name, client=client)
    with pytest.raises(AlreadyExistsError):
        modal.Queue.objects.create(name, client=client)
    assert name in [q.name for q in modal.Queue.objects.list(client=client)]
    held = modal.Queue.from_name(name, client=client)
    held.put(1, partition="other")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(held.get, timeout=30)
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(timeout=0.2)
        modal.Queue.objects.delete(name, client=client)
        with pytest.raises(NotFoundError):
            waiting.result(timeout=10)
    with pytest.raises(NotFoundError):
        held.len()
    with pytest.raises(NotFoundError):
        modal.Queue.from_name(name, client=client).len()


def test_an_ephemeral_queue_and_one_by_id(client: modal.Client) -> None:
    """An ephemeral Queue is reachable by its id, as a function that gets the id would."""
    with modal.Queue.ephemeral(client=client) as ephemeral:
        modal.Queue.from_id(ephemeral.object_id, client=client).put("over there")
        assert ephemeral.get() == "over there"
