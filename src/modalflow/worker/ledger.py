"""What the worker tells the world: the claim and the outcome in the ledger, and the event that points to it.

The ledger is the truth: writing it is tried for minutes. An event is a hint: it is tried briefly, and its loss is
nobody's failure.
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
from modalflow.support.described import describe

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Patience:
    """How long a remote call is tried, in seconds."""

    whole: float
    one_try: float
    pause: float = 0.2
    longest_pause: float = 10.0


CLAIM_PATIENCE = Patience(whole=120, one_try=20)
LEDGER_PATIENCE = Patience(whole=600, one_try=30)
EVENT_PATIENCE = Patience(whole=10, one_try=5)


class Claim(Enum):
    """What came of a claim."""

    OURS = auto()
    LOST = auto()
    """An earlier container had claimed it for this same function call, and is gone."""
    ENDED = auto()
    """It has already come to its end."""
    DUPLICATE = auto()
    """Another function call has it."""


class Report:
    """The ledger and the events of one worker app. ``ledger`` is its ``modal.Dict``, ``events`` its ``modal.Queue``."""

    def __init__(self, ledger: Any, events: Any, *, patience: Patience = LEDGER_PATIENCE) -> None:
        self._ledger = ledger
        self._events = events
        self._patience = patience

    async def claim(self, entry: Entry) -> tuple[Claim, Entry]:
        """Claim a work id; return the entry that is in the ledger now."""
        text = entry.to_json()
        created = await persist(
            lambda: self._ledger.put.aio(entry.work_id, text, skip_if_exists=True), CLAIM_PATIENCE, "claim the work id"
        )
        if created:
            return Claim.OURS, entry
        found = await self._read(entry.work_id)
        if found is None:
            # It was there a moment ago: the executor has taken the outcome and removed it.
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

        Nothing is written where somebody else has ended it meanwhile (this container was taken for lost), or where the
        executor has forgotten it.
        """
        found = await self._read(entry.work_id)
        if found is not None and found.owner != entry.owner:
            log.warning("%s was ended by somebody else meanwhile: %s", entry.label, found.reason)
            return
        if found is not None:
            await self._write(entry)
        await self.send(entry)

    async def take_over(self, entry: Entry) -> None:
        """Write the outcome of a work id whose owner is gone, and send its event."""
        await self._write(entry)
        await self.send(entry)

    async def refuse(self, entry: Entry) -> None:
        """Write the outcome of a work id that nobody claimed, unless somebody did meanwhile, and send its event."""
        text = entry.to_json()
        created = await persist(
            lambda: self._ledger.put.aio(entry.work_id, text, skip_if_exists=True), self._patience, "write the ledger"
        )
        if created:
            await self.send(entry)

    async def send(self, entry: Entry) -> None:
        """Send the event of an entry; never raises."""
        if not entry.partition:
            return
        try:
            await persist(
                lambda: self._events.put.aio(entry.to_json(), block=False, partition=entry.partition),
                EVENT_PATIENCE,
                "send the event",
            )
        except Exception as error:  # noqa: BLE001  The executor looks at the ledger when it hears nothing.
            log.warning("The event of %s could not be sent: %s", entry.label, describe(error))

    async def _write(self, entry: Entry) -> None:
        text = entry.to_json()
        await persist(lambda: self._ledger.put.aio(entry.work_id, text), self._patience, "write the ledger")

    async def _read(self, work_id: str) -> Entry | None:
        text = await persist(lambda: self._ledger.get.aio(work_id), self._patience, "read the ledger")
        if text is None:
            return None
        try:
            return Entry.from_json(text)
        except MalformedMessageError as error:
            log.warning("The ledger's entry of %s is unreadable: %s", work_id, error)
            return None


async def persist(call: Callable[[], Awaitable[_T]], patience: Patience, what: str) -> _T:
    """Try a remote call until it succeeds or patience runs out; then raise what it raised last."""
    deadline = time.monotonic() + patience.whole
    pause = patience.pause
    while True:
        try:
            # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that arrives together with the answer.
            async with asyncio.timeout(patience.one_try):
                return await call()
        except Exception as error:
            if time.monotonic() + pause > deadline:
                raise
            log.warning("Could not %s, trying again: %s", what, describe(error))
        await asyncio.sleep(pause)
        pause = min(pause * 2, patience.longest_pause)
