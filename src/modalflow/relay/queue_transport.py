"""The transport over a Modal Queue: one partition for all relays, and one for each session."""

from __future__ import annotations

import contextlib
import queue
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import modal

from modalflow.names import Names
from modalflow.protocol.plain_data import plain_data_only

#: The partition of all requests.
REQUESTS = "requests"
#: Seconds until Modal drops an idle partition. A container's answers are worthless after its timeouts.
_LIFETIME = 3600
#: The longest turn of a busy thread, in seconds. Python's own, 5 ms, doubles the time of a request over the relay.
_SWITCH_INTERVAL = 0.0005
#: Bytes of items in one RPC.
_BATCH = 4 * 1024 * 1024


def _partition(session: str) -> str:
    return f"session-{session}"


class QueueTransport:
    """Both sides of the transport, over one Modal Queue. Items are data: nothing in them is imported."""

    def __init__(self, names: Names, **scope: Any) -> None:
        """``scope`` are keyword arguments of ``modal.Queue.from_name``. Makes this process switch threads sooner."""
        # The SDK has a thread of its own, and each item crosses to it and back.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
        self._queue: Any = modal.Queue.from_name(names.relay, create_if_missing=True, **scope)

    async def open(self) -> None:
        """Find the Modal Queue, so that the first item does not wait for this. That one gets an error, if any."""
        with contextlib.suppress(Exception):
            await self._queue.hydrate.aio()

    async def _put(self, partition: str, items: Iterable[bytes]) -> None:
        batch: list[bytes] = []
        size = 0
        for item in items:
            if batch and size + len(item) > _BATCH:
                await self._put_batch(partition, batch)
                batch, size = [], 0
            batch.append(item)
            size += len(item)
        await self._put_batch(partition, batch)

    async def _put_batch(self, partition: str, items: list[bytes]) -> None:
        await self._queue.put_many.aio(items, block=False, partition=partition, partition_ttl=_LIFETIME)

    async def _get(self, partition: str, most: int, wait: float) -> Sequence[object]:
        try:
            # One unreadable item must not lose the others.
            with plain_data_only(lenient=True):
                found = await self._queue.get_many.aio(most, block=True, timeout=wait, partition=partition)
        except queue.Empty:
            return ()
        return found or ()


class QueueToRelays(QueueTransport):
    """The container's side: a relay.transport.ContainerTransport."""

    async def send(self, item: bytes, parts: Sequence[bytes] = (), *, place: str = "") -> None:
        if parts:
            await self._put(place, parts)
        await self._put(REQUESTS, [item])

    async def receive(self, session: str, wait: float) -> Sequence[object]:
        return await self._get(_partition(session), 100, wait)


class QueueToContainers(QueueTransport):
    """The relay's side: a relay.transport.RelayTransport."""

    async def receive(self, most: int, wait: float) -> Sequence[object]:
        return await self._get(REQUESTS, most, wait)

    async def parts(self, place: str, most: int, wait: float) -> Sequence[object]:
        return await self._get(place, most, wait)

    async def send(self, session: str, items: Iterable[bytes]) -> None:
        await self._put(_partition(session), items)
