"""The relay's side of tunnels: it dials out to containers that ask for it, and holds one connection for each.

A container can name any address. So the relay dials Modal's own only, and sends nothing to whatever answers but a proof
that is worthless to all but this container.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import ssl
from collections.abc import Iterable, Sequence

from modalflow.control_plane import is_loopback
from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import SessionKeys
from modalflow.relay.host.api_server import problem
from modalflow.relay.host.parts import KeptParts
from modalflow.relay.messages import LARGEST, PART_SIZE, Answer, Header
from modalflow.relay.transport import RelayTransport
from modalflow.relay.tunnel import CONNECT_TIMEOUT, Address, Wire, prove_relay
from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: The domain of Modal's tunnels.
DOMAIN = ".modal.host"
#: The most connections of a relay, and of those not yet proved. The others' requests travel over Modal Queues.
MOST, MOST_DIALS = 2000, 16
#: Items of all containers that wait for the relay.
_MOST_WAITING = 200
#: Bytes of answers that wait for one container, except the parts of large ones, which have their turn.
_MOST_ANSWERS = 4 * PART_SIZE
#: Seconds for one part of a large answer to leave.
_PART_TIMEOUT = 20.0
#: Bytes of large requests from all containers that have not arrived as a whole.
_MOST_PARTS = 256 * 1024 * 1024


class TunnelsToContainers:
    """The relay's side: a relay.transport.RelayTransport. What has no tunnel travels over another transport."""

    def __init__(self, relay: str, other: RelayTransport, *, local: bool, most: int = 0) -> None:
        """``local``: Modal is a local control plane, with tunnels on this machine's loopback.

        ``most``: the limit of connections; 0 for the usual one.
        """
        self._relay = relay
        self._other = other
        self._local = local
        self._most = most or _most_connections()
        self._tls: ssl.SSLContext | None = None
        self._wires: dict[str, Wire] = {}
        self._parts = KeptParts(_MOST_PARTS)
        self._dials = 0
        self._inbox: asyncio.Queue[tuple[Wire, bytes]] = asyncio.Queue(_MOST_WAITING)
        self._polls: list[asyncio.Task[Sequence[object]]] = []
        self._receivers = 0
        self._readers: set[asyncio.Task[None]] = set()

    # --- the transport ---

    async def receive(self, most: int, wait: float) -> Sequence[object]:
        while True:
            for poll in self._polls:
                if poll.done():
                    self._polls.remove(poll)
                    return poll.result()
            if not self._inbox.empty():
                return self._arrived([], most)
            if len(self._polls) <= self._receivers:
                self._polls.append(asyncio.create_task(self._other.receive(most, wait)))
            self._receivers += 1
            arrival = asyncio.create_task(self._inbox.get())
            try:
                # A long poll that is given up would lose its items. So it goes on, for the next call.
                await asyncio.wait({*self._polls, arrival}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._receivers -= 1
                if not arrival.done():
                    arrival.cancel()
            if arrival.done() and not arrival.cancelled():
                return self._arrived([arrival.result()], most)

    def _arrived(self, first: list[tuple[Wire, bytes]], most: int) -> Sequence[object]:
        while len(first) < most and not self._inbox.empty():
            first.append(self._inbox.get_nowait())
        # A container that has given up its connection sends its requests to another relay.
        return [item for wire, item in first if not wire.closed]

    async def parts(self, place: str, most: int, wait: float) -> Sequence[object]:
        # All are here before the item that announces them.
        found = self._parts.pop(place)
        return await self._other.parts(place, most, wait) if found is None else found

    async def send(self, session: str, items: Iterable[bytes]) -> None:
        wire = self._wires.get(session)
        if wire is None or wire.closed:
            await self._other.send(session, items)
            return
        before = False
        for item in items:
            if before:
                # Other answers go in between, and the next part is made when this one has left.
                await self._left(wire)
            before = True
            if wire.waiting > _MOST_ANSWERS:
                # Without a wait: a container that reads nothing must not hold up the others.
                wire.close()
                raise ConnectionError("The container does not read its answers")
            wire.write(item)

    async def _left(self, wire: Wire) -> None:
        try:
            async with asyncio.timeout(_PART_TIMEOUT):
                await wire.drained()
        except TimeoutError:
            wire.close()
            raise ConnectionError("The container does not read a large answer") from None

    # --- connections ---

    async def connect(self, header: Header, keys: SessionKeys, target: str) -> Answer:
        """Dial the address of a session's tunnel; return the answer to its request for this."""
        try:
            address = Address.read(target)
        except MalformedMessageError as error:
            return problem(400, str(error))
        if not self._is_tunnel(address):
            return problem(403, f"The relay does not connect to {address}: it is no tunnel of Modal's")
        if self._dials >= MOST_DIALS or len(self._wires) >= self._most:
            return problem(503, f"The relay has {len(self._wires)} tunnels, and {self._dials} more on the way")
        self._dials += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                wire = await self._dial(address, header, keys)
        # ValueError and OverflowError: a name or a port that is none.
        except (OSError, EOFError, TimeoutError, MalformedMessageError, ValueError, OverflowError) as error:
            return problem(502, f"The relay cannot connect to {address}: {describe(error)}")
        finally:
            self._dials -= 1
        if before := self._wires.get(header.session):
            before.close()
        self._wires[header.session] = wire
        reader = asyncio.create_task(self._read(wire, header.session))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return Answer(204)

    def _is_tunnel(self, address: Address) -> bool:
        if self._local:
            return not address.tls and is_loopback(str(address))
        return address.tls and address.host.endswith(DOMAIN)

    async def _dial(self, address: Address, header: Header, keys: SessionKeys) -> Wire:
        if address.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if address.tls else None
        wire = Wire(*await asyncio.open_connection(address.host, address.port, ssl=tls, limit=2**20))
        try:
            await prove_relay(wire, keys, key_id=header.key_id, session=header.session, relay=self._relay)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _read(self, wire: Wire, session: str) -> None:
        # Each container has its own places: it cannot spoil another's message.
        own, size, places = f"parts-{session[:16]}-", 0, set[str]()
        try:
            while True:
                place, item = await wire.read()
                if not place:
                    places = {name for name in places if self._parts.size_of(name)}
                    size = sum(map(self._parts.size_of, places))
                    await self._inbox.put((wire, item))
                    continue
                size += len(item)
                if not place.startswith(own) or size > LARGEST + PART_SIZE:
                    raise MalformedMessageError("A container sends parts without a message")
                places.add(place)
                self._parts.add(place, item)
                # A sign of life: the parts of a large message take their time.
                wire.write(b"")
        except (OSError, EOFError, MalformedMessageError) as error:
            log.debug("The tunnel of a container ended: %s", describe(error))
        finally:
            wire.close()
            for name in places:
                self._parts.pop(name)
            if self._wires.get(session) is wire:
                del self._wires[session]

    @property
    def connections(self) -> int:
        """How many containers have a connection."""
        return len(self._wires)

    def close(self) -> None:
        """End all connections: their containers turn to other relays."""
        for wire in list(self._wires.values()):
            wire.close()

    async def end(self) -> None:
        """End everything, for good."""
        self.close()
        tasks = [*self._polls, *self._readers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _most_connections() -> int:
    """Return the limit of connections. The other half of this process's files is for the API server and Modal."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // 2)
