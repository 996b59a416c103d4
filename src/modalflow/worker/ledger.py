"""The ledger and the events of one worker app, as a container uses them: claims, outcomes, and hints at both.

The ledger is the truth, so a write is retried for minutes. An event only points to the ledger: it is retried briefly,
and losing one is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

from modalflow.errors import MalformedMessageError
from modalflow.protocol.messages import Entry, State
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long a remote call is retried, in seconds."""

    total: float
    one_try: float
    pause: float = 0.2
    longest_pause: float = 10.0


CLAIM_RETRY = RetryPolicy(total=120, one_try=20)
LEDGER_RETRY = RetryPolicy(total=600, one_try=30)
EVENT_RETRY = RetryPolicy(total=10, one_try=5)


class Claim(Enum):
    """The result of a claim."""

    OURS = auto()
    LOST = auto()
    """An earlier container claimed the work for this function call, and is gone."""
    ENDED = auto()
    """The work has already ended."""
    DUPLICATE = auto()
    """Another function call has the work."""


class Ledger:
    """The ledger and the events of one worker app, which are a ``modal.Dict`` and a ``modal.Queue``."""

    def __init__(self, entries: Any, events: Any, *, retry: RetryPolicy = LEDGER_RETRY) -> None:
        self._entries = entries
        self._events = events
        self._retry = retry

    async def claim(self, entry: Entry) -> tuple[Claim, Entry]:
        """Claim a work id; return the entry that the ledger has now."""
        text = entry.to_json()
        created = await retried(
            lambda: self._entries.put.aio(entry.work_id, text, skip_if_exists=True), CLAIM_RETRY, "claim the work id"
        )
        if created:
            return Claim.OURS, entry
        found = await self._read(entry.work_id)
        if found is None:
            # The entry existed a moment ago: the executor has received the outcome and removed it.
            return Claim.DUPLICATE, entry
        if found.owner == entry.owner:
            # Our own claim, whose answer was lost on the way.
            return Claim.OURS, found
        if found.state is not State.RUNNING:
            return Claim.ENDED, found
        if found.function_call_id == entry.function_call_id:
            return Claim.LOST, found
        return Claim.DUPLICATE, found

    async def finish(self, entry: Entry) -> None:
        """Write the outcome of a work id that the entry's owner claimed, and send its event.

        Nothing is written if another owner has ended it meanwhile (because this container seemed to be lost), or if the
        executor has removed it.
        """
        found = await self._read(entry.work_id)
        if found is not None and found.owner != entry.owner:
            log.warning("%s was ended by another owner meanwhile: %s", entry.label, found.reason)
            return
        if found is not None:
            await self._write(entry)
        await self.send(entry)

    async def take_over(self, entry: Entry) -> None:
        """Write the outcome of a work id whose owner is gone, and send its event."""
        await self._write(entry)
        await self.send(entry)

    async def refuse(self, entry: Entry) -> None:
        """Write the outcome of an unclaimed work id and send its event; do nothing if another run has claimed it.

        The entry's owner may have claimed it without an answer.
        """
        text = entry.to_json()
        created = await retried(
            lambda: self._entries.put.aio(entry.work_id, text, skip_if_exists=True), self._retry, "write the ledger"
        )
        if not created and (found := await self._read(entry.work_id)) is not None and found.owner == entry.owner:
            await self._write(entry)
            created = True
        if created:
            await self.send(entry)

    async def send(self, entry: Entry) -> None:
        """Send the event of an entry; never raises."""
        if not entry.partition:
            return
        try:
            await retried(
                lambda: self._events.put.aio(entry.to_json(), block=False, partition=entry.partition),
                EVENT_RETRY,
                "send the event",
            )
        except Exception as error:  # noqa: BLE001  The executor checks the ledger when no event arrives.
            log.warning("The event of %s could not be sent: %s", entry.label, describe(error))

    async def _write(self, entry: Entry) -> None:
        text = entry.to_json()
        await retried(lambda: self._entries.put.aio(entry.work_id, text), self._retry, "write the ledger")

    async def _read(self, work_id: str) -> Entry | None:
        text = await retried(lambda: self._entries.get.aio(work_id), self._retry, "read the ledger")
        if text is None:
            return None
        try:
            return Entry.from_json(text)
        except MalformedMessageError as error:
            log.warning("The ledger's entry of %s is unreadable: %s", work_id, error)
            return None


async def retried(call: Callable[[], Awaitable[_T]], policy: RetryPolicy, what: str) -> _T:
    """Retry a remote call until it succeeds or the time is over; then raise its last error."""
    deadline = time.monotonic() + policy.total
    backoff = Backoff(policy.pause, policy.longest_pause)
    while True:
        try:
            # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that arrives together with the answer.
            async with asyncio.timeout(policy.one_try):
                return await call()
        except Exception as error:
            pause = backoff.next()
            if time.monotonic() + pause > deadline:
                raise
            log.warning("Could not %s, trying again: %s", what, describe(error))
        await asyncio.sleep(pause)
