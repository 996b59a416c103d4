"""A relay: takes requests of containers from a transport, has the API server carry them out, and sends the answers.

Any number of relays share the requests. A relay keeps only requests in flight and the newest answers: if it dies, the
containers send their requests again, to the others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from modal import exception

from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import KnownSessions, SessionKeys
from modalflow.relay.host import parts
from modalflow.relay.host.api_server import ApiServer, UnreachableError, problem
from modalflow.relay.host.counts import Counts
from modalflow.relay.host.fair_queue import FairQueue, Rank, UnderWay, Work, rank
from modalflow.relay.host.memory_limit import MemoryLimit, NoRoomError, Share
from modalflow.relay.host.seen_requests import SeenRequest, SeenRequests, Sight
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.host.warnings import LATE, Warnings
from modalflow.relay.keys import KeyRing
from modalflow.relay.messages import CLOCK, WORKING, Answer, Direction, Header, Request, unpack
from modalflow.relay.transport import RelayTransport
from modalflow.relay.tunnel import CONNECT
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe
from modalflow.support.standstill import LEAST, Standstill

log = logging.getLogger(__name__)

#: The largest age of a message in seconds. Containers send again much earlier.
WINDOW = 60.0
#: Seconds of one long poll; of a further one, while there is work.
WAIT, FURTHER_WAIT = 45.0, 5.0
#: The number of simultaneous long polls while there is work: one would miss requests on its way back.
POLLS = 3
#: Items of one poll.
BATCH = 100
#: The most waiting requests of a relay: it leaves others to other relays.
MOST_WAITING = 300
#: Requests at the API server at once, and large ones among them.
CONCURRENCY, MOST_LARGE = 48, 4
#: Those of one container: the others have their turn while its requests wait for the API server, or for memory.
MOST_EACH = 24
#: Further urgent requests at once: heartbeats pass while all others wait for a slow API server.
MORE_URGENT = 16
#: Seconds between two notices to a container that its request waits here, or at the API server.
NOTICE = 2.0
#: Seconds of patience with an API server out of reach.
HELD = 10.0
#: Seconds between two attempts after an error, doubling up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
#: Seconds between two requests for keys because of an unknown one.
KEY_PAUSE = 5.0


class Relay:
    """One relay."""

    def __init__(
        self,
        name: str,
        transport: RelayTransport,
        api: ApiServer,
        fetch_keys: Callable[[], Awaitable[KeyRing]],
        counts: Counts,
        tunnels: TunnelsToContainers | None = None,
    ) -> None:
        """``tunnels``: the transport, if containers may ask for a connection."""
        self.name = name
        self.counts = counts
        self._transport = transport
        self._tunnels = tunnels
        self._api = api
        self._fetch_keys = fetch_keys
        self._keys: KeyRing | None = None
        self._keys_asked_at = 0.0
        self._sessions = KnownSessions()
        self._seen = SeenRequests(WINDOW)
        self._under_way = UnderWay(MOST_EACH)
        self._queue: FairQueue[Work] = FairQueue(self._under_way.is_busy)
        self._memory = MemoryLimit()
        self._standstill = Standstill()
        self._running: set[asyncio.Task[None]] = set()
        self._unanswered: dict[int, Work] = {}
        self._large = 0
        self._room = asyncio.Event()
        self._reachable = asyncio.Event()
        self._reachable.set()
        self._busy_at = 0.0
        self._warnings = Warnings(log)

    async def run(self) -> None:
        """Relay until cancelled. Others take up the requests in flight."""
        try:
            self._keys = await self._first_keys()
            log.info("Relay %s sends requests to %s", self.name, self._api.shown)
            self._standstill.begin()
            await asyncio.gather(self._notify(), *(self._poll(number) for number in range(POLLS)))
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            if self._tunnels is not None:
                await self._tunnels.end()

    @property
    def key_id(self) -> str:
        """The newest key; empty until the relay has any."""
        return "" if self._keys is None else self._keys.newest.id

    @property
    def in_flight(self) -> int:
        """How many requests have no answer yet."""
        return len(self._queue) + len(self._running)

    # --- keys ---

    async def _first_keys(self) -> KeyRing:
        backoff, logged = Backoff(FIRST_PAUSE, LONGEST_PAUSE), ""
        while True:
            try:
                return await self._fetch_keys()
            except exception.AuthError:
                raise
            except Exception as error:  # noqa: BLE001  Whatever it is, another deployment or a better network may fix it.
                if (why := describe(error)) != logged:
                    log.error("The relay has no keys yet, and tries again: %s", why)
                    logged = why
                await asyncio.sleep(backoff.next())

    async def _renew_keys(self) -> None:
        try:
            self._keys = await self._fetch_keys()
            self._sessions.clear()
            log.info("The relay's keys are %s now", ", ".join(sorted(self._keys.pairs)))
        except Exception as error:  # noqa: BLE001  It goes on with the old ones.
            log.warning("The relay's keys could not be read again: %s", describe(error))
        finally:
            self._keys_asked_at = time.monotonic()

    def _keys_of(self, header: Header) -> SessionKeys | None:
        """Return the keys of a message's session; None if the relay does not know its key (yet)."""
        assert self._keys is not None
        pair = self._keys.accepted(header.key_id)
        if pair is None:
            if time.monotonic() - self._keys_asked_at > KEY_PAUSE:
                # Not again before the answer to this, which takes a container its time.
                self._keys_asked_at = math.inf
                self._start(self._renew_keys())
            return None
        return self._sessions.keys(pair, header.session, header.public)

    # --- requests ---

    async def _poll(self, number: int) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            await self._reachable.wait()
            if len(self._queue) >= MOST_WAITING:
                self._room.clear()
                await self._room.wait()
            if number and time.monotonic() - self._busy_at > FURTHER_WAIT:
                await asyncio.sleep(0.1)
                continue
            try:
                items = await self._transport.receive(BATCH, FURTHER_WAIT if number else WAIT)
                backoff.reset()
            except exception.AuthError:
                # Another process reads the credentials again: its parent, or the service manager, starts one.
                raise
            except Exception as error:  # noqa: BLE001  Whatever Modal's SDK raises, it is asked again.
                log.warning("No requests from Modal: %s", describe(error))
                await asyncio.sleep(backoff.next())
                continue
            for item in items:
                self._busy_at = time.monotonic()
                try:
                    self._accept(item)
                except MalformedMessageError as error:
                    self.counts.refused += 1
                    self._warnings.warn(type(error).__name__, "A message was dropped: %s", error)

    def _accept(self, item: object) -> None:
        raw, sealed = unpack(item)
        header = Header.read(raw)
        if header.direction is not Direction.REQUEST:
            raise MalformedMessageError("It is no request")
        keys = self._keys_of(header)
        if keys is None:
            self.counts.unknown_keys += 1
            return
        content = keys.open(Direction.REQUEST, raw, sealed)
        age = time.time() - header.sent_at
        if abs(age) > (LEAST if self._standstill.is_fresh else WINDOW):
            self._refuse_late(Work(header, keys, None, SeenRequest(0.0)), age)
            return
        request = Request.read(content) if header.parts == 1 else None
        sight, seen = self._seen.see(header.session, header.request_id, header.attempt)
        work = Work(header, keys, request, seen, self._standstill.now())
        if sight is Sight.NEW:
            self.counts.queued(age)
            self._unanswered[id(work)] = work
            if request is not None and request.method == CONNECT:
                # It asks nothing of the API server, and must not wait behind those that do.
                self._begin(work)
                return
            self._queue.add(header.session, Rank.LARGE if request is None else rank(request), work)
            self._fill()
        elif sight is Sight.REPLAYED:
            self.counts.replays += 1
        elif sight is Sight.IN_PROGRESS:
            self.counts.repeats += 1
            self._start(self._send(work, Answer(WORKING)))
        elif seen.answer is not None:
            self.counts.repeats += 1
            self._repeat(work, seen.answer)

    def _refuse_late(self, work: Work, age: float) -> None:
        self.counts.late += 1
        self._warnings.warn("late", LATE, age)
        # The request may be a replay by another container. Only the container of the session can read the notice.
        self._start(self._send(work, Answer(WORKING, [(CLOCK, "")])))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A request failed in the relay", exc_info=error)
        self._fill()

    def _fill(self) -> None:
        """Carry out as many requests as possible."""
        while (last := self._last_rank()) is not None and (work := self._queue.pop(last)) is not None:
            if not self._standstill.was_since(work.taken_at):
                self._begin(work)
                continue
            # The container has sent it to another relay. Carried out late, it could change a task that has gone on.
            work.seen.forgotten = True
            self._unanswered.pop(id(work), None)
        if len(self._queue) < MOST_WAITING:
            self._room.set()

    def _last_rank(self) -> Rank | None:
        """Return the last rank that has room at the API server; None if none has."""
        if self._under_way.total >= CONCURRENCY:
            return Rank.URGENT if self._under_way.total < CONCURRENCY + MORE_URGENT else None
        return Rank.LARGE if self._large < MOST_LARGE else Rank.USUAL

    def _begin(self, work: Work) -> None:
        self._under_way.begin(work.header.session)
        self._large += work.request is None
        self._start(self._carry_out(work))

    # --- answers ---

    async def _carry_out(self, work: Work) -> None:
        with self._memory.share(work.header.session) as share:
            try:
                answer = await self._answered(work, share)
                self._large -= work.request is None
                self._unanswered.pop(id(work), None)
                if answer is not None:
                    self._seen.answered(work.seen, answer)
                    if share.is_empty:
                        await self._send(work, answer)
            finally:
                self._under_way.end(work.header.session)
            if answer is not None and not share.is_empty:
                # Its room limits it, and not its turn: it waits for its container alone.
                work.seen.sending = True
                self._fill()
                await self._send_answer(work, answer)

    def _repeat(self, work: Work, answer: Answer) -> None:
        """Send an answer again; only a sign of life while it is still on its way."""
        if work.seen.sending:
            self._start(self._send(work, Answer(WORKING)))
        else:
            work.seen.sending = True
            self._start(self._send_again(work, answer))

    async def _send_again(self, work: Work, answer: Answer) -> None:
        with self._memory.share(work.header.session) as share:
            try:
                await share.take(len(answer.body))
            except NoRoomError as error:
                work.seen.sending = False
                self._warnings.warn("room", "An answer could not be sent to a container again: %s", error)
                return
            await self._send_answer(work, answer)

    async def _send_answer(self, work: Work, answer: Answer) -> None:
        try:
            await self._send(work, answer)
        finally:
            work.seen.sending = False

    async def _answered(self, work: Work, share: Share) -> Answer | None:
        try:
            return await self._answer(work, share)
        except MalformedMessageError as error:
            return problem(400, str(error))
        except Exception as error:
            # Without an answer, the container would wait, and a repeat find the request in progress.
            log.exception("A request could not be carried out")
            return problem(500, f"The relay could not carry out the request: {describe(error)}")

    async def _notify(self) -> None:
        """Send signs of life for all requests without an answer: otherwise containers send them to other relays."""
        while True:
            await asyncio.sleep(NOTICE / 4)
            self._standstill.now()
            now = time.monotonic()
            due: dict[str, list[bytes]] = {}
            for work in self._unanswered.values():
                if now - work.noted_at >= NOTICE:
                    work.noted_at = now
                    due.setdefault(work.header.session, []).extend(
                        parts.items_of(Answer(WORKING), work.header, work.keys, self.name)
                    )
            for session, items in due.items():
                self._start(self._send_items(session, items))

    async def _answer(self, work: Work, share: Share) -> Answer | None:
        request = work.request
        if request is None:
            content = await parts.collected(self._transport, work.header, work.keys, self._warnings)
            if content is None:
                # The container sends it again.
                work.seen.forgotten = True
                return None
            request = Request.read(content)
        if request.method == CONNECT and self._tunnels is not None:
            if not self._reachable.is_set():
                return problem(503, f"The relay cannot reach the API server at {self._api.shown}")
            answer = await self._tunnels.connect(work.header, work.keys, request.target)
            self.counts.tunnels += answer.status == 204
            return answer
        began = time.monotonic()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                answer = await self._api.carry_out(request, share)
            except UnreachableError as error:
                self._stop_polling(str(error))
                if time.monotonic() - began > HELD:
                    return problem(503, str(error))
                await asyncio.sleep(backoff.next())
                continue
            self.counts.at_api(time.monotonic() - began)
            return answer

    def _stop_polling(self, why: str) -> None:
        """Leave new requests to other relays until the API server can be reached again."""
        if self._reachable.is_set():
            self._reachable.clear()
            if self._tunnels is not None:
                self._tunnels.close()
            log.error("%s. The relay takes no requests until it can be reached.", why)
            self._start(self._wait_for_api())

    async def check_api(self) -> None:
        """Ask the API server once, before a container does; log an error if it cannot be reached."""
        try:
            await self._api.check()
        except UnreachableError as error:
            self._stop_polling(str(error))

    async def _wait_for_api(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await self._api.check()
                break
            except UnreachableError:
                await asyncio.sleep(backoff.next())
        log.info("The API server at %s can be reached again", self._api.shown)
        self._reachable.set()

    async def _send(self, work: Work, answer: Answer) -> None:
        await self._send_items(work.header.session, parts.items_of(answer, work.header, work.keys, self.name))

    async def _send_items(self, session: str, items: Iterable[bytes]) -> None:
        try:
            await self._transport.send(session, items)
        except Exception as error:  # noqa: BLE001  The container asks again, and gets the answer then.
            self._warnings.warn("send", "An answer could not be sent to a container: %s", describe(error))
