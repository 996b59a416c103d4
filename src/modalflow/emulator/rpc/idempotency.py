"""Idempotency: one effect and one answer for each idempotency key, however often a client repeats a call.

The SDK sends a call again, with the same key, if the answer got lost. Owns the kinds of RPCs, which the handlers
declare, and the remembered answers with their limits and records.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError, Message

from modalflow.emulator.state.journal import Journal, Table

#: Answers kept. The SDK repeats a call within seconds, so the newest are enough.
MOST = 20_000
#: Bytes kept, over all answers: an item of a Dict may have 100 MiB.
MOST_BYTES = 64 * 2**20

Key = tuple[str, str]
"""The RPC's name and the idempotency key."""

Answerer = Callable[[], Coroutine[Any, Any, Message]]


@dataclass(frozen=True)
class Change:
    """The RPC changes something: one effect and one answer for each idempotency key."""


@dataclass(frozen=True)
class Read:
    """The RPC changes nothing that a client could notice: a repeated call runs again."""


@dataclass(frozen=True)
class Anew:
    """The RPC changes something, and a repeated call nevertheless runs again."""

    reason: str


@dataclass(frozen=True)
class Delivery:
    """The RPC is held until there is something to deliver, and delivers it once.

    A caller that hangs up before takes nothing; an answer that delivered something is kept for a repeated call.
    """

    delivered: Callable[[Any, Any], bool]
    """Whether an answer delivered something; gets the request and the answer."""


Repeat: TypeAlias = Change | Read | Anew | Delivery

CHANGE = Change()
READ = Read()
HEARTBEAT = Anew("it reports that the client lives, and so does a repeated call")


class RememberedAnswers:
    """The newest answers, by RPC and idempotency key."""

    def __init__(
        self,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        *,
        journal: Journal,
        types: Mapping[str, type[Message]] | None = None,
    ) -> None:
        """Answers in the journal are remembered; ``types`` are the types of answers by the name of the RPC."""
        self._most = most
        self._most_bytes = most_bytes
        self._under_way: dict[Key, asyncio.Future[Message]] = {}
        self._kept: OrderedDict[Key, tuple[Message, int]] = OrderedDict()
        self._bytes = 0
        self._records: Table[Message] = journal.table("answers", lambda answer: answer.SerializeToString())
        for name, key, record in self._records.load():
            kind = (types or {}).get(name)
            # An SDK that no longer knows the RPC does not repeat it.
            if kind is not None and (answer := _parsed(kind, record)) is not None:
                self._remember((name, key), answer)

    async def once(self, key: Key, answer: Answerer) -> Message:
        """Return what ``answer`` returns, run for the first call with this key only; a failure is not remembered.

        The work is a task of its own, so that a connection lost half-way does not undo half of an effect.
        """
        kept = self._kept.get(key)
        if kept is not None:
            return kept[0]
        pending = self._under_way.get(key)
        if pending is None:
            pending = self._under_way[key] = asyncio.ensure_future(self._first(key, answer))
            pending.add_done_callback(_retrieved)
        return await asyncio.shield(pending)

    async def delivered(self, key: Key, answer: Answerer, is_delivery: Callable[[Message], bool]) -> Message:
        """Like ``once``, for a call that is held: it ends with its caller, and only a delivery is remembered."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept[0]
        answered = await answer()
        if is_delivery(answered):
            self._record(key, answered)
        return answered

    async def _first(self, key: Key, answer: Answerer) -> Message:
        try:
            answered = await answer()
            self._record(key, answered)
            return answered
        finally:
            # A failed call had no effect: a repeated one is tried again.
            del self._under_way[key]

    def _record(self, key: Key, answer: Message) -> None:
        # In the turn of the event loop in which the handler returned: effect and answer are one transaction.
        self._records.put(*key, answer)
        self._remember(key, answer)

    def _remember(self, key: Key, answer: Message) -> None:
        size = answer.ByteSize()
        self._kept[key] = (answer, size)
        self._bytes += size
        while len(self._kept) > self._most or (self._bytes > self._most_bytes and len(self._kept) > 1):
            oldest, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed
            self._records.discard(*oldest)


def _parsed(kind: type[Message], record: bytes) -> Message | None:
    try:
        return kind.FromString(record)
    except DecodeError:
        return None


def _retrieved(done: asyncio.Future[Message]) -> None:
    # The callers may have gone away: then nothing else retrieves the failure.
    if not done.cancelled():
        done.exception()
