"""Modal Queues: first in, first out per partition, each item delivered at most once.

Owns the queues, their limits, and the deliveries that a repeated call gets again. `Partition` is one partition,
`QueueRecords` what is on disk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.queues.partition import MAX_ITEMS, Partition, PartitionFull, QueueItem
from modalflow.emulator.queues.queue_records import QueueRecords
from modalflow.emulator.rpc.idempotency import CHANGE, HEARTBEAT, READ, Anew
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, seconds
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.registry import Registry, StoredObject

#: The docstring of the SDK's ``Queue``, "Limits" and "Lifetime of a queue and its partitions".
MAX_ITEM_BYTES = 1024 * 1024
MAX_PARTITIONS = 100_000
MAX_PARTITION_KEY_BYTES = 64
DEFAULT_PARTITION_TTL = 24 * 3600
#: The longest poll, even if the client asks for more. The SDK polls for 50 seconds at a time (``_get_blocking`` in
#: modal/queue.py); the five additional seconds are inferred.
MAX_WAIT_SECONDS = 55.0
#: Inferred: the SDK's ``Queue.iterate`` continues after the last item, however many there were.
ITEMS_PER_ANSWER = 500
#: Seconds for which deliveries are remembered, and their number, for calls that are repeated after a lost answer.
REPEAT_WITHIN_SECONDS = 60.0
REMEMBERED_DELIVERIES = 2_000
#: A queue is written once for this many item numbers; after a restart it skips the unused ones.
NUMBERS_RESERVED = 1_000


@dataclass(kw_only=True)
class Queue(StoredObject):
    """One Modal Queue."""

    RECORDED: ClassVar[tuple[str, ...]] = (*StoredObject.RECORDED, "reserved")

    partitions: dict[bytes, Partition] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: iter(()))
    """The numbers of its next items; they never start again, so that a reader's position stays valid."""
    reserved: int = 0
    """The highest number that may be in use, as last written."""
    tidy_at: int = 1_000
    """The number of partitions from which on idle ones are removed."""

    @property
    def metadata(self) -> api_pb2.QueueMetadata:
        return api_pb2.QueueMetadata(name=self.name, creation_info=self.creation_info)


class Deliveries:
    """The latest deliveries by idempotency key."""

    def __init__(self, clock: Callable[[], float], records: QueueRecords) -> None:
        self._clock = clock
        self._records = records
        self._values: OrderedDict[str, tuple[list[bytes], float]] = OrderedDict(records.deliveries())

    def recall(self, key: str | None) -> list[bytes] | None:
        self._forget()
        found = self._values.get(key or "")
        return None if found is None else found[0]

    def remember(self, key: str | None, values: list[bytes]) -> None:
        if key and values:
            self._values[key] = (values, self._clock())
            self._records.delivered(key, *self._values[key])
        self._forget()

    def _forget(self) -> None:
        horizon = self._clock() - REPEAT_WITHIN_SECONDS
        while self._values:
            key, (_, when) = next(iter(self._values.items()))
            if when >= horizon and len(self._values) <= REMEMBERED_DELIVERIES:
                return
            del self._values[key]
            self._records.delivery_forgotten(key)


class Queues(Service):
    """The Queue RPCs."""

    def __init__(self, environments: Environments, journal: Journal, *, clock: Callable[[], float] = clock.now) -> None:
        self._clock = clock
        self._queues = Registry("Queue", "qu", Queue, environments, journal, clock=clock, on_delete=self._close)
        self._records = QueueRecords(journal)
        self._deliveries = Deliveries(clock, self._records)
        kept = self._records.items()
        for queue in self._queues.all():
            queue.numbers = self._numbers(queue)
            for key, item, expires_at in kept.get(queue.object_id, ()):
                partition = queue.partitions.setdefault(key, Partition(queue.numbers))
                partition.restore(item)
                partition.expires_at = expires_at

    @rpc(repeat=CHANGE)
    async def QueueGetOrCreate(
        self, request: api_pb2.QueueGetOrCreateRequest, caller: Caller
    ) -> api_pb2.QueueGetOrCreateResponse:
        queue, new = self._queues.get_or_create(
            request.deployment_name, request.environment_name, request.object_creation_type
        )
        if new:
            queue.numbers = self._numbers(queue)
        return message(api_pb2.QueueGetOrCreateResponse, queue_id=queue.object_id, metadata=queue.metadata)

    @rpc(repeat=READ)
    async def QueueGetById(self, request: api_pb2.QueueGetByIdRequest, caller: Caller) -> api_pb2.QueueGetByIdResponse:
        queue = self._queues.get(request.queue_id)
        return api_pb2.QueueGetByIdResponse(queue_id=queue.object_id, metadata=queue.metadata)

    @rpc(repeat=READ)
    async def QueueList(self, request: api_pb2.QueueListRequest, caller: Caller) -> api_pb2.QueueListResponse:
        return message(
            api_pb2.QueueListResponse,
            environment_name=request.environment_name,
            queues=[
                message(
                    api_pb2.QueueListResponse.QueueInfo,
                    name=queue.name,
                    created_at=queue.created_at,
                    num_partitions=sum(1 for partition in self._live(queue).values() if len(partition)),
                    total_size=min(self._total(queue), request.total_size_limit or self._total(queue)),
                    queue_id=queue.object_id,
                    metadata=queue.metadata,
                )
                for queue in self._queues.listed(request.environment_name, request.pagination)
            ],
        )

    @rpc(repeat=CHANGE, needs_room=False)
    async def QueueDelete(self, request: api_pb2.QueueDeleteRequest, caller: Caller) -> Empty:
        self._queues.delete(request.queue_id)
        return Empty()

    @rpc(repeat=HEARTBEAT)
    async def QueueHeartbeat(self, request: api_pb2.QueueHeartbeatRequest, caller: Caller) -> Empty:
        self._queues.heartbeat(request.queue_id)
        return Empty()

    @rpc(
        repeat=CHANGE,
        retried_forever=True,
        inferred=(
            "a put that does not fit as a whole changes nothing; an empty partition does not count towards the limit."
        ),
    )
    async def QueuePut(self, request: api_pb2.QueuePutRequest, caller: Caller) -> Empty:
        queue = self._queues.get(request.queue_id)
        _check_values([len(value) for value in request.values])
        ttl = request.partition_ttl_seconds or DEFAULT_PARTITION_TTL
        if ttl < 0:
            raise GRPCError(Status.INVALID_ARGUMENT, f"partition_ttl is {ttl}; expected seconds above 0")
        partition = self._partition(queue, request.partition_key)
        try:
            new = partition.put(request.values)
        except PartitionFull as full:
            # The SDK raises queue.Full for the status, and retries with block=True (modal/queue.py). The wording is
            # inferred, as every text in this file without a named source.
            label = queue.name or queue.object_id
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"Queue {label!r} is full: {full}") from None
        partition.expires_at = self._clock() + ttl
        if not new and partition.newest is not None:
            # The record of the newest item holds the expiry of its partition: it exists as long as any item does.
            new = [partition.newest]
        self._records.put(queue.object_id, request.partition_key, new, partition.expires_at)
        return Empty()

    @rpc(
        repeat=Anew(
            "a caller that hangs up while it waits must not take an item; the service remembers deliveries itself"
        ),
        inferred="callers that wait at a partition are served in their order; a repeated call gets the same items.",
    )
    async def QueueGet(self, request: api_pb2.QueueGetRequest, caller: Caller) -> api_pb2.QueueGetResponse:
        queue = self._queues.get(request.queue_id)
        repeated = self._deliveries.recall(caller.idempotency_key)
        if repeated is not None:
            return api_pb2.QueueGetResponse(values=repeated)
        if request.n_values < 0:
            raise GRPCError(Status.INVALID_ARGUMENT, f"n_values is {request.n_values}; expected at least 1")
        partition = self._partition(queue, request.partition_key)
        taken = await partition.take_within(request.n_values or 1, min(seconds(request.timeout), MAX_WAIT_SECONDS))
        _drop_if_idle(queue, request.partition_key)
        values = [item.value for item in taken]
        # Not at the assignment to this caller: a kill between the two would lose the items for a repeated call.
        self._records.gone(queue.object_id, taken)
        self._deliveries.remember(caller.idempotency_key, values)
        return api_pb2.QueueGetResponse(values=values)

    @rpc(repeat=READ)
    async def QueueNextItems(
        self, request: api_pb2.QueueNextItemsRequest, caller: Caller
    ) -> api_pb2.QueueNextItemsResponse:
        queue = self._queues.get(request.queue_id)
        last = request.last_entry_id or "0"
        if not last.isdecimal():
            raise GRPCError(Status.INVALID_ARGUMENT, f"last_entry_id is {last!r}; expected the one of an item")
        partition = self._partition(queue, request.partition_key)
        wait = min(seconds(request.item_poll_timeout), MAX_WAIT_SECONDS)
        items = await partition.after(int(last), ITEMS_PER_ANSWER, wait)
        _drop_if_idle(queue, request.partition_key)
        return api_pb2.QueueNextItemsResponse(items=[_entry(item) for item in items])

    @rpc(repeat=READ)
    async def QueueLen(self, request: api_pb2.QueueLenRequest, caller: Caller) -> api_pb2.QueueLenResponse:
        queue = self._queues.get(request.queue_id)
        if request.total:
            return api_pb2.QueueLenResponse(len=self._total(queue))
        partition = self._live(queue).get(request.partition_key)
        return api_pb2.QueueLenResponse(len=0 if partition is None else len(partition))

    @rpc(repeat=CHANGE, needs_room=False)
    async def QueueClear(self, request: api_pb2.QueueClearRequest, caller: Caller) -> Empty:
        queue = self._queues.get(request.queue_id)
        for key, partition in queue.partitions.items():
            if request.all_partitions or key == request.partition_key:
                self._records.gone(queue.object_id, partition.clear())
        return Empty()

    def _numbers(self, queue: Queue) -> Iterator[int]:
        number = queue.reserved
        while True:
            number += 1
            if number > queue.reserved:
                queue.reserved = number + NUMBERS_RESERVED
                self._queues.save(queue)
            yield number

    def _close(self, queue: Queue) -> None:
        self._records.forget(queue.object_id)
        for partition in queue.partitions.values():
            partition.close(GRPCError(Status.NOT_FOUND, f"Queue {queue.object_id!r} was deleted"))

    def _live(self, queue: Queue) -> dict[bytes, Partition]:
        now = self._clock()
        for partition in queue.partitions.values():
            self._records.gone(queue.object_id, partition.expire(now))
        return queue.partitions

    def _total(self, queue: Queue) -> int:
        return sum(len(partition) for partition in self._live(queue).values())

    def _partition(self, queue: Queue, key: bytes) -> Partition:
        if len(key) > MAX_PARTITION_KEY_BYTES:
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"A partition key of {len(key)} bytes is too long; expected at most {MAX_PARTITION_KEY_BYTES}",
            )
        partition = queue.partitions.get(key)
        if partition is None:
            self._make_room(queue)
            partition = queue.partitions[key] = Partition(queue.numbers)
        self._records.gone(queue.object_id, partition.expire(self._clock()))
        return partition

    def _make_room(self, queue: Queue) -> None:
        if len(queue.partitions) < queue.tidy_at:
            return
        for key in list(self._live(queue)):
            _drop_if_idle(queue, key)
        queue.tidy_at = max(1_000, min(2 * len(queue.partitions), MAX_PARTITIONS))
        if len(queue.partitions) >= MAX_PARTITIONS:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"Queue {queue.name or queue.object_id!r} has {len(queue.partitions)} partitions; at most "
                f"{MAX_PARTITIONS} are possible",
            )


def _drop_if_idle(queue: Queue, key: bytes) -> None:
    partition = queue.partitions.get(key)
    if partition is not None and partition.idle:
        del queue.partitions[key]


def _entry(item: QueueItem) -> api_pb2.QueueItem:
    return api_pb2.QueueItem(value=item.value, entry_id=str(item.number))


def _check_values(sizes: list[int]) -> None:
    if max(sizes, default=0) > MAX_ITEM_BYTES:
        # The SDK's ``Queue.put`` searches for "status = '413'", the answer of Modal's gateway.
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"An item of {max(sizes)} bytes is too large; expected at most {MAX_ITEM_BYTES} (status = '413')",
        )
    if len(sizes) > MAX_ITEMS:
        # Not RESOURCE_EXHAUSTED: the SDK would wait for room forever.
        raise GRPCError(
            Status.INVALID_ARGUMENT, f"{len(sizes)} items in one put are too many; a partition holds {MAX_ITEMS}"
        )
