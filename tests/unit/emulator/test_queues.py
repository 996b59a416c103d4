"""The Queue service: repeated calls, expiry, idle partitions."""

from __future__ import annotations

from modal_proto import api_pb2

from modalflow.emulator.environments import Environments
from modalflow.emulator.queues import REPEAT_WITHIN_SECONDS, Queues
from modalflow.emulator.rpc import Caller
from tests.support import Clock


def caller(key: str | None = None) -> Caller:
    return Caller(container_id=None, client_version="", idempotency_key=key)


async def made(clock: Clock) -> tuple[Queues, str]:
    queues = Queues(Environments(), clock=clock)
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
