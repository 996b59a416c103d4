"""The container's side of a tunnel: the container listens, and a relay dials out and holds the connection.

Without a connection, requests travel over another transport, and so does the request for one. So a task waits for no
tunnel, and works without any.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import modal

from modalflow import control_plane
from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import Session
from modalflow.relay.messages import Answer, Request
from modalflow.relay.transport import ContainerTransport
from modalflow.relay.tunnel import CONNECT, CONNECT_TIMEOUT, Address, Wire, check_relay
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: Seconds before another tunnel or connection after a failure, doubling up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
#: Seconds between two requests for a connection.
REQUEST_PAUSE = 1.0
#: Seconds without any sign of the relay after a request until the connection is given up. A relay sends signs for
#: waiting requests every 2 seconds.
SILENCE = 5.0
#: Seconds for a frame to leave.
SEND_TIMEOUT = 20.0
#: Seconds after a request over the other transport, in which its answers are expected there.
OTHER_ANSWERS = 60.0
#: The most connections without a proof: anyone can connect.
MOST_UNPROVED = 16

Forward = Callable[[int], AbstractAsyncContextManager[Address]]
"""Makes a tunnel to a local port, for the time of the context."""
Ask = Callable[[Request], Awaitable[tuple[Answer, str]]]


@asynccontextmanager
async def forward(port: int) -> AsyncIterator[Address]:
    """Make a tunnel of Modal's; with TLS, except on the local control plane, which has no certificates."""
    local = control_plane.is_local()
    async with modal.forward.aio(port, unencrypted=local) as tunnel:
        yield Address(*tunnel.tcp_socket, tls=False) if local else Address(*tunnel.tls_socket, tls=True)


class TunnelToRelays:
    """The container's side: a relay.transport.ContainerTransport."""

    def __init__(self, other: ContainerTransport, session: Session, forward: Forward = forward) -> None:
        """``other``: the transport of requests without a connection."""
        self._other = other
        self._session = session
        self._forward = forward
        self._wires: list[Wire] = []
        self._unproved: set[Wire] = set()
        self._inbox: list[object] = []
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._poll: asyncio.Task[None] | None = None
        self._poll_error: Exception | None = None
        self._other_until = 0.0
        self.sent = 0
        """How many requests have gone through a tunnel."""

    @property
    def connected(self) -> bool:
        """Return whether a relay holds a connection."""
        return bool(self._wires)

    # --- the transport ---

    async def send(self, item: bytes, parts: Sequence[bytes] = (), *, place: str = "") -> None:
        wire = self._usable()
        if wire is None:
            self._wanted.set()
            self._expect_on_other()
            await self._other.send(item, parts, place=place)
            return
        self.sent += 1
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                for part in parts:
                    wire.write(part, place)
                    # Heartbeats of other tasks go in between.
                    await wire.drained()
                wire.write(item)
                await wire.drained()
        except (OSError, TimeoutError):
            wire.close()
            raise

    async def receive(self, session: str, wait: float) -> Sequence[object]:
        deadline = time.monotonic() + wait
        while not self._inbox and (left := deadline - time.monotonic()) > 0:
            self._arrived.clear()
            if self._poll is None and time.monotonic() < self._other_until:
                self._poll = asyncio.create_task(self._poll_other(session, left))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            if self._poll_error is not None:
                error, self._poll_error = self._poll_error, None
                raise error
        found, self._inbox = self._inbox, []
        return found

    def _expect_on_other(self) -> None:
        self._other_until = time.monotonic() + OTHER_ANSWERS
        self._arrived.set()

    async def _poll_other(self, session: str, wait: float) -> None:
        try:
            self._inbox += await self._other.receive(session, wait)
        except Exception as error:  # noqa: BLE001  The caller of ``receive`` gets it.
            self._poll_error = error
        finally:
            self._poll = None
            self._arrived.set()

    def _usable(self) -> Wire | None:
        """Return the newest connection with a relay that answers."""
        for wire in reversed(self._wires):
            if not wire.closed and wire.silence < SILENCE:
                return wire
            wire.close()
        return None

    # --- the tunnel ---

    def want(self) -> None:
        """Have a connection soon, not only from the first request on."""
        self._wanted.set()

    async def run(self, ask: Ask) -> None:
        """Have a tunnel and a connection while there are requests, until cancelled. ``ask`` sends a request."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            while True:
                await self._wanted.wait()
                try:
                    async with self._listening() as port, self._forward(port) as address:
                        await self._stay_connected(ask, address)
                except Exception as error:  # noqa: BLE001  Whatever Modal's SDK raises, there is the other transport.
                    log.info("No tunnel: requests travel over Modal Queues (%s)", describe(error))
                await asyncio.sleep(backoff.next())
        finally:
            if self._poll is not None:
                self._poll.cancel()

    async def _stay_connected(self, ask: Ask, address: Address) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._usable() is not None:
                continue
            answer, relay = await ask(Request(CONNECT, str(address)))
            if answer.status == 204:
                backoff.reset()
                await asyncio.sleep(REQUEST_PAUSE)
            else:
                text = answer.body[:300].decode(errors="replace")
                log.info("Relay %s does not use the tunnel: %s %s", relay, answer.status, text)
                await asyncio.sleep(backoff.next())

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[int]:
        # Modal's tunnels lead to the container's loopback.
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for wire in (*self._wires, *self._unproved):
                wire.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        try:
            if len(self._unproved) < MOST_UNPROVED:
                await self._prove(wire)
                self._wires.append(wire)
                await self._take(wire)
        except (OSError, EOFError, TimeoutError, MalformedMessageError, asyncio.CancelledError) as error:
            # Anyone can connect: this is worth no line in a task's log.
            log.debug("A connection of a tunnel ended: %s", describe(error))
        finally:
            if wire in self._wires:
                self._wires.remove(wire)
                # The relay may send there what it could not send here.
                self._expect_on_other()
            wire.close()

    async def _prove(self, wire: Wire) -> None:
        self._unproved.add(wire)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await check_relay(wire, self._session)
        finally:
            self._unproved.discard(wire)

    async def _take(self, wire: Wire) -> None:
        while True:
            _, item = await wire.read()
            # An empty one is a sign of life only.
            if item:
                self._inbox.append(item)
                self._arrived.set()
