"""One partition of a Modal Queue: its items, the callers that wait for them, and its lifetime.

Owns the order, the limits and the assignment of items to callers. It knows no protocol message.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: The docstring of the SDK's ``Queue``, "Limits". That a partition's bytes are those of its items alone is inferred.
MAX_ITEMS = 5_000
MAX_BYTES = 64 * 1024 * 1024


class PartitionFull(Exception):
    """The items do not fit. The text names the limit."""


@dataclass(frozen=True)
class QueueItem:
    """One item; later ones have higher numbers."""

    number: int
    value: bytes


@dataclass
class _Waiter:
    wanted: int
    answer: asyncio.Future[list[QueueItem]]


class Partition:
    """Items in the order of their arrival, each given to exactly one caller; callers are served in their order.

    ``numbers`` continues over all partitions that ever exist under one key. ``expires_at`` is a time of the caller's
    clock: ``expire`` removes the items of a partition after it.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._items: deque[QueueItem] = deque()
        self._bytes = 0
        self._waiters: deque[_Waiter] = deque()
        self._watchers: set[asyncio.Future[None]] = set()
        self._numbers = numbers
        self.expires_at = 0.0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def idle(self) -> bool:
        """Whether the partition can be removed without effect."""
        return not (self._items or self._waiters or self._watchers)

    def put(self, values: Iterable[bytes]) -> list[QueueItem]:
        """Add all values and return their items; PartitionFull, with none added, if they do not fit."""
        new = list(values)
        size = sum(len(value) for value in new)
        if len(self._items) + len(new) > MAX_ITEMS:
            raise PartitionFull(
                f"{len(self._items)} items and {len(new)} more are over the limit of {MAX_ITEMS} per partition"
            )
        if self._bytes + size > MAX_BYTES:
            raise PartitionFull(f"{self._bytes} bytes and {size} more are over the limit of {MAX_BYTES} per partition")
        items = [QueueItem(next(self._numbers), value) for value in new]
        self._items.extend(items)
        self._bytes += size
        self._serve()
        return items

    def restore(self, item: QueueItem) -> None:
        """Add an item of an earlier control plane, after those restored so far."""
        self._items.append(item)
        self._bytes += len(item.value)

    @property
    def newest(self) -> QueueItem | None:
        return self._items[-1] if self._items else None

    def take(self, wanted: int) -> list[QueueItem]:
        """Remove and return up to ``wanted`` items; none if other callers wait already."""
        if self._waiters:
            return []
        return self._pop(wanted)

    async def take_within(self, wanted: int, seconds: float) -> list[QueueItem]:
        """Like ``take``, but wait up to ``seconds`` for the first item. A cancelled caller takes nothing."""
        taken = self.take(wanted)
        if taken or seconds <= 0:
            return taken
        waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            done, _ = await asyncio.wait({waiter.answer}, timeout=seconds)
            return waiter.answer.result() if done else []
        except asyncio.CancelledError:
            if waiter.answer.done() and waiter.answer.exception() is None:
                self.put_back(waiter.answer.result())
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def put_back(self, items: list[QueueItem]) -> None:
        """Put items that were not delivered back to the front."""
        self._items.extendleft(reversed(items))
        self._bytes += sum(len(item.value) for item in items)
        self._serve()

    async def after(self, number: int, limit: int, seconds: float) -> list[QueueItem]:
        """Return items after that number without removing them; wait up to ``seconds`` for one."""
        found = self._newer(number, limit)
        if found or seconds <= 0:
            return found
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.add(watcher)
        try:
            await asyncio.wait({watcher}, timeout=seconds)
        finally:
            self._watchers.discard(watcher)
        return self._newer(number, limit)

    def clear(self) -> list[QueueItem]:
        """Remove and return all items."""
        gone = list(self._items)
        self._items.clear()
        self._bytes = 0
        return gone

    def expire(self, now: float) -> list[QueueItem]:
        """Remove and return the items if the partition has expired."""
        return self.clear() if self._items and self.expires_at <= now else []

    def close(self, error: Exception) -> None:
        """Raise an error in all waiting callers: the queue was deleted."""
        for waiter in self._waiters:
            if not waiter.answer.done():
                waiter.answer.set_exception(error)
        self._wake_watchers()

    def _serve(self) -> None:
        self._wake_watchers()
        while self._items and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.answer.done():
                waiter.answer.set_result(self._pop(waiter.wanted))

    def _wake_watchers(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _pop(self, wanted: int) -> list[QueueItem]:
        taken = [self._items.popleft() for _ in range(min(wanted, len(self._items)))]
        self._bytes -= sum(len(item.value) for item in taken)
        return taken

    def _newer(self, number: int, limit: int) -> list[QueueItem]:
        return list(itertools.islice((item for item in self._items if item.number > number), limit))
