"""A transport in memory that loses, doubles and delays items as a test wants."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

Fate = Callable[[bytes], Sequence[bytes]]
"""Returns what arrives of an item: nothing, the item, or two of it."""


class MemoryTransport:
    """Both sides, for any number of containers and relays of one event loop."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[bytes]] = defaultdict(asyncio.Queue)
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []
        self.fate_of_request: Fate = lambda item: [item]
        self.fate_of_answer: Fate = lambda item: [item]

    def to_relays(self) -> ToRelays:
        return ToRelays(self)

    def to_containers(self) -> ToContainers:
        return ToContainers(self)

    async def get(self, place: str, most: int, wait: float) -> Sequence[object]:
        queue = self.queues[place]
        try:
            async with asyncio.timeout(wait):
                found = [await queue.get()]
        except TimeoutError:
            return ()
        while len(found) < most and not queue.empty():
            found.append(queue.get_nowait())
        return found


class ToRelays:
    def __init__(self, memory: MemoryTransport) -> None:
        self._memory = memory

    async def send(self, item: bytes, parts: Sequence[bytes] = (), *, place: str = "") -> None:
        for part in parts:
            self._memory.queues[place].put_nowait(part)
        self._memory.requests.append(item)
        for arriving in self._memory.fate_of_request(item):
            self._memory.queues["requests"].put_nowait(arriving)

    async def receive(self, session: str, wait: float) -> Sequence[object]:
        return await self._memory.get(session, 100, wait)


class ToContainers:
    def __init__(self, memory: MemoryTransport) -> None:
        self._memory = memory

    async def receive(self, most: int, wait: float) -> Sequence[object]:
        return await self._memory.get("requests", most, wait)

    async def parts(self, place: str, most: int, wait: float) -> Sequence[object]:
        return await self._memory.get(place, most, wait)

    async def send(self, session: str, items: Iterable[bytes]) -> None:
        for item in items:
            self._memory.answers.append(item)
            for arriving in self._memory.fate_of_answer(item):
                self._memory.queues[session].put_nowait(arriving)
