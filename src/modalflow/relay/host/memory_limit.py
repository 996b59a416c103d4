"""The memory of a relay for large answers: all of them together have a limit, and so have those of one container.

An answer without room stays in the API server's connection until other answers have left. So thousands of containers
that read large XComs at once delay each other, and no relay grows. Small answers are free: their number has a limit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

#: Bytes for all answers, and for those of one container, which may also have a single larger one.
MOST, MOST_EACH = 192 * 1024 * 1024, 64 * 1024 * 1024
#: The largest answer, in bytes, that takes no share.
FREE = 64 * 1024
#: How often the bytes of an answer are in memory at the worst moment: as they arrive, joined, and with their headers.
COPIES = 3
#: The same for a part of it: encrypted, and twice in Modal's SDK, so many bytes in one RPC.
SENT_COPIES, SENT = 3, 4 * 1024 * 1024
#: Seconds for an answer to wait for room.
PATIENCE = 60.0


def cost(size: int) -> int:
    """Return the memory for an answer of so many bytes."""
    return COPIES * size + SENT_COPIES * min(size, SENT)


class NoRoomError(Exception):
    """There was no room for an answer."""


@dataclass(eq=False)
class _Waiting:
    container: str
    size: int
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class MemoryLimit:
    """The room for answers. They get it in the order of their arrival, except those of a container with too many."""

    def __init__(self, most: int = MOST, most_each: int = MOST_EACH) -> None:
        self._most, self._most_each = most, most_each
        self._of_each = Counter[str]()
        self._waiting: list[_Waiting] = []
        self.taken = 0
        """Bytes of all shares."""

    def share(self, container: str) -> Share:
        """Return the share of one answer to a container; empty at first."""
        return Share(self, container)

    async def take(self, container: str, size: int) -> None:
        """Return once there is room. Raises NoRoomError."""
        waiting = _Waiting(container, size)
        self._waiting.append(waiting)
        self._admit()
        try:
            async with asyncio.timeout(PATIENCE):
                await waiting.admitted
        except BaseException as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self.release(container, size)
            # It may have been the first in the line.
            self._admit()
            if isinstance(error, TimeoutError):
                raise NoRoomError(f"no room for a large answer within {PATIENCE:g} s") from None
            raise

    def release(self, container: str, size: int) -> None:
        """Give room to others."""
        self.taken -= size
        self._of_each[container] -= size
        if not self._of_each[container]:
            del self._of_each[container]
        self._admit()

    def _admit(self) -> None:
        for waiting in list(self._waiting):
            if waiting.admitted.done():
                # Cancelled a moment ago.
                continue
            own = self._of_each.get(waiting.container, 0)
            if own and own + waiting.size > self._most_each:
                continue
            if self.taken and self.taken + waiting.size > self._most:
                # Smaller ones behind it would keep it waiting forever.
                return
            self._waiting.remove(waiting)
            self.taken += waiting.size
            self._of_each[waiting.container] += waiting.size
            waiting.admitted.set_result(None)


class Share:
    """The memory of one answer, until the end of the context."""

    def __init__(self, limit: MemoryLimit, container: str) -> None:
        self._limit, self._container = limit, container
        self._taken = 0

    @property
    def is_empty(self) -> bool:
        """Return whether the answer is small."""
        return not self._taken

    async def take(self, size: int) -> None:
        """Return once there is room for an answer of so many bytes. Raises NoRoomError."""
        if size > FREE and not self._taken:
            await self._limit.take(self._container, cost(size))
            self._taken = cost(size)

    def shrink(self, size: int) -> None:
        """Keep the room for so many bytes alone: the answer is smaller than it could have been."""
        spare = self._taken - cost(size)
        if spare > 0:
            self._taken -= spare
            self._limit.release(self._container, spare)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._taken:
            self._limit.release(self._container, self._taken)
            self._taken = 0
