"""The container's conversation with relays: requests out, answers back, and repeats in between.

One long poll for all requests of the container, and only while one is in flight. Knows nothing of HTTP servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from modalflow.errors import MalformedMessageError
from modalflow.relay.container.repeats import understood
from modalflow.relay.encryption import Session
from modalflow.relay.messages import (
    CLOCK,
    WORKING,
    Answer,
    Direction,
    Header,
    Request,
    is_urgent,
    pieces,
    place_of,
    unpack,
)
from modalflow.relay.transport import ContainerTransport
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: Seconds without a sign of a relay before a request is sent again, doubling up to the second number.
FIRST_RESEND, LONGEST_RESEND = 3.0, 15.0
#: A request is sent again after this many usual round trips, if that is longer.
PATIENCE = 4.0
#: The share of the newest round trip in the usual one.
_NEWEST = 0.2
#: Seconds of one long poll.
WAIT = 45.0
#: Seconds before Modal is asked again after an error, doubling up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
#: Seconds of a request without a client: clients repeat requests after a timeout.
KEPT = 60.0
#: Seconds without a sign of any relay before a line in the logs, doubling.
NOTED_AFTER = 20.0

#: Seconds between two clocks that count as a difference.
LEAST_DIFFERENCE = 15.0
#: Requests of a container on their way at once, without urgent ones. Further ones wait here, and not in front of the
#: heartbeats of other containers.
MOST_SENT = 64

Note = Callable[[str], None]
"""Writes a line into the logs of waiting workloads."""


@dataclass
class _Pending:
    """A request in flight."""

    id: str
    request: Request
    answer: asyncio.Future[Answer]
    attempts: int = 0
    sent_at: float = 0.0
    waiting: int = 0
    """How many clients wait for the answer."""
    left_at: float = 0.0
    """When the last client left."""
    was_late: bool = False
    """A relay has dropped the newest attempt because of this container's clock."""
    sign: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by anything new: a notice of a relay, the return of a client."""
    parts: dict[int, bytes] = field(default_factory=dict)
    """The arrived parts of an answer."""
    parts_of: tuple[str, int] = ("", 0)
    """The relay and the attempt of these parts."""


class RelayClient:
    """Sends requests to relays and awaits their answers, for one session."""

    def __init__(self, transport: ContainerTransport, session: Session, container_id: str, note: Note) -> None:
        self._transport = transport
        self._session = session
        self._container_id = container_id
        self._note = note
        self._pending: dict[str, _Pending] = {}
        self._by_content: OrderedDict[str, _Pending] = OrderedDict()
        self._next_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._poller: asyncio.Task[None] | None = None
        self._sign_at = time.monotonic()
        self._noted = 0.0
        self._round_trip = 0.0
        self._turns = asyncio.Semaphore(MOST_SENT)
        self._clock = 0.0
        """Seconds from this container's clock to that of the relays."""
        self.relay = ""
        """The relay of the newest answer."""

    async def ask(self, request: Request) -> tuple[Answer, str]:
        """Return the answer of the Execution API, and the name of the relay.

        A request equal to one in flight shares its answer: it is a client's repeat after a timeout.
        """
        pending = self._joined(request)
        pending.waiting += 1
        try:
            answer = await asyncio.shield(pending.answer)
        finally:
            pending.waiting -= 1
            pending.left_at = time.monotonic()
        self._forget(pending)
        return understood(request, answer, repeated=pending.attempts > 1), self.relay

    async def close(self) -> None:
        """Stop; requests in flight get no answer."""
        tasks = [*self._tasks, *([self._poller] if self._poller is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- requests ---

    def _joined(self, request: Request) -> _Pending:
        content = _digest(request)
        pending = self._by_content.get(content)
        if pending is not None and self._can_be_joined(pending):
            pending.sign.set()
            return pending
        self._next_id += 1
        if not self._pending:
            # The silence of a time without requests is no sign.
            self._sign_at, self._noted = time.monotonic(), 0.0
        pending = _Pending(str(self._next_id), request, asyncio.get_running_loop().create_future())
        self._pending[pending.id] = self._by_content[content] = pending
        self._spawn(self._send_until_answered(pending))
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        return pending

    def _can_be_joined(self, pending: _Pending) -> bool:
        if not pending.answer.done():
            return bool(pending.waiting) or self._is_kept(pending)
        # An answer without a client. A value may have changed since then.
        changes = pending.request.method not in ("GET", "HEAD") and not pending.request.target.endswith("/heartbeat")
        return changes and self._is_kept(pending)

    def _is_kept(self, pending: _Pending) -> bool:
        return time.monotonic() - pending.left_at < KEPT

    def _forget(self, pending: _Pending) -> None:
        self._pending.pop(pending.id, None)
        content = _digest(pending.request)
        if self._by_content.get(content) is pending:
            del self._by_content[content]

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_until_answered(self, pending: _Pending) -> None:
        while not pending.answer.done():
            if pending.waiting:
                async with contextlib.nullcontext() if is_urgent(pending.request) else self._turns:
                    await self._send_while_awaited(pending)
            elif self._is_kept(pending):
                await self._quiet(pending, 1.0)
            else:
                break
        # An answer without a client is kept for its repeat.
        while not pending.waiting and self._is_kept(pending) and pending.id in self._pending:
            await asyncio.sleep(1.0)
        if not pending.waiting:
            self._forget(pending)

    async def _send_while_awaited(self, pending: _Pending) -> None:
        content = pieces(pending.request.to_bytes())
        backoff, failures = Backoff(FIRST_RESEND, LONGEST_RESEND), Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while pending.waiting and not pending.answer.done():
            first = min(max(FIRST_RESEND, PATIENCE * self._round_trip), LONGEST_RESEND)
            pause = max(backoff.next(), first) if await self._send(pending, content) else failures.next()
            await self._quiet(pending, pause)
            self._note_silence()

    async def _quiet(self, pending: _Pending, pause: float) -> None:
        """Return after that time without a sign of a relay, with the answer, or if it has to be sent at once."""
        while not pending.answer.done():
            if pending.was_late:
                pending.was_late = False
                return
            pending.sign.clear()
            sign = asyncio.create_task(pending.sign.wait())
            either: set[asyncio.Future[Any]] = {sign, pending.answer}
            done, _ = await asyncio.wait(either, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            sign.cancel()
            if not done:
                return

    async def _send(self, pending: _Pending, parts: Sequence[memoryview]) -> bool:
        pending.attempts += 1
        pending.sent_at = time.monotonic()
        header = Header(
            direction=Direction.REQUEST,
            key_id=self._session.key_id,
            session=self._session.name,
            request_id=pending.id,
            attempt=pending.attempts,
            sent_at=time.time() + self._clock,
            parts=len(parts),
            public=self._session.public.hex(),
            container=self._container_id,
        )
        try:
            if len(parts) == 1:
                await self._transport.send(self._session.keys.seal(header, parts[0]))
                return True
            # The first item announces the others: `part` 0 is empty.
            header = dataclasses.replace(header, parts=len(parts) + 1)
            further = [
                self._session.keys.seal(dataclasses.replace(header, part=number), part)
                for number, part in enumerate(parts, 1)
            ]
            await self._transport.send(self._session.keys.seal(header, b""), further, place=place_of(header))
            return True
        except Exception as error:  # noqa: BLE001  Whatever Modal's SDK raises, the request is sent again.
            log.warning("A request to the Execution API could not be sent to a relay: %s", describe(error))
            return False

    # --- answers ---

    async def _poll(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while any(not pending.answer.done() for pending in self._pending.values()):
            try:
                self._take(await self._transport.receive(self._session.name, WAIT))
                backoff.reset()
            except Exception as error:  # noqa: BLE001  Whatever Modal's SDK raises, it is asked again.
                log.warning("No answers of a relay from Modal: %s", describe(error))
                await asyncio.sleep(backoff.next())

    def _take(self, items: Iterable[object]) -> None:
        for item in items:
            try:
                self._take_one(item)
            except MalformedMessageError as error:
                log.warning("An answer was dropped: %s", error)

    def _take_one(self, item: object) -> None:
        raw, sealed = unpack(item)
        header = Header.read(raw)
        if header.session != self._session.name or header.key_id != self._session.key_id:
            raise MalformedMessageError("It is for another container")
        content = self._session.keys.open(Direction.ANSWER, raw, sealed)
        self._seen(header.relay)
        pending = self._pending.get(header.request_id)
        if pending is None or pending.answer.done():
            return
        pending.sign.set()
        if header.parts > 1:
            whole = _whole(pending, header, content)
            if whole is None:
                return
            content = whole
        answer = Answer.read(content)
        if answer.status == WORKING and any(name == CLOCK for name, _ in answer.headers):
            self._correct_clock(pending, header)
        elif answer.status != WORKING:
            if pending.attempts == 1:
                self._round_trip += _NEWEST * (time.monotonic() - pending.sent_at - self._round_trip)
            pending.answer.set_result(answer)

    def _correct_clock(self, pending: _Pending, header: Header) -> None:
        """Use the relay's time from now on: it refuses messages by an age of which this clock is a part."""
        difference = header.sent_at - time.time()
        # A message that was late on its way alone comes again after the usual time. Nor is it an old notice's turn.
        if header.attempt != pending.attempts or abs(difference - self._clock) < LEAST_DIFFERENCE:
            return
        log.warning("This container's clock is %.0f s behind that of relay %s", difference, header.relay)
        self._clock, pending.was_late = difference, True

    def _seen(self, relay: str) -> None:
        now = time.monotonic()
        if self._noted:
            self._note(f"Relay {relay} has answered after {now - self._sign_at:.0f} s.")
        self.relay, self._sign_at, self._noted = relay, now, 0.0

    def _note_silence(self) -> None:
        silent = time.monotonic() - self._sign_at
        if silent > max(NOTED_AFTER, 2 * self._noted) and any(pending.waiting for pending in self._pending.values()):
            self._noted = silent
            self._note(
                f"No relay has answered for {silent:.0f} s: requests to Airflow's Execution API wait. Check that the "
                "scheduler runs, or a service with `modalflow relay`, and that it reaches Modal and the API server."
            )


def _whole(pending: _Pending, header: Header, content: bytes) -> bytes | None:
    """Keep a part of an answer; return the whole content once it is there."""
    if pending.parts_of != (header.relay, header.attempt):
        pending.parts_of, pending.parts = (header.relay, header.attempt), {}
    pending.parts[header.part] = content
    if len(pending.parts) < header.parts:
        return None
    return b"".join(pending.parts[number] for number in range(header.parts))


def _digest(request: Request) -> str:
    digest = hashlib.sha256(f"{request.method} {request.target}\n".encode())
    digest.update("".join(value for name, value in request.headers if name.lower() == "authorization").encode())
    digest.update(b"\n" + request.body)
    return digest.hexdigest()
