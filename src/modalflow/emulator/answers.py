"""Answers to calls that a client may repeat: one effect for each idempotency key.

Owns the memory of answers and its bounds. Which RPCs need it, each service says.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from google.protobuf.message import Message

#: Answers kept. The SDK repeats a call within seconds, so the newest are enough.
MOST = 20_000
#: Bytes kept, over all answers: an item of a Dict may have 100 MiB.
MOST_BYTES = 64 * 2**20

Key = tuple[str, str]
"""The RPC's name and the idempotency key."""


class Answers:
    """Remembers what was answered, the oldest only as long as there is room."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Key, asyncio.Future[Message]] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._bytes = 0

    async def once(self, key: Key, answer: Callable[[], Coroutine[Any, Any, Message]]) -> Message:
        """Return what ``answer`` returns, run for the first call with this key only; a failure is not remembered.

        The work is a task of its own, so that a connection lost half-way does not undo half of an effect.
        """
        pending = self._kept.get(key)
        if pending is None:
            pending = asyncio.ensure_future(answer())
            self._kept[key] = pending
            pending.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(pending)

    def _answered(self, key: Key, done: asyncio.Future[Message]) -> None:
        if done.cancelled() or done.exception() is not None:
            # It had no effect to protect: its repetition is to be tried.
            self._kept.pop(key, None)
            return
        self._sizes[key] = done.result().ByteSize()
        self._bytes += self._sizes[key]
        while len(self._sizes) > self._most or (self._bytes > self._most_bytes and len(self._sizes) > 1):
            oldest = next(iter(self._sizes))
            self._bytes -= self._sizes.pop(oldest)
            self._kept.pop(oldest, None)
