"""The wire of a tunnel: its address, the frames of its connection, and a relay's proof. No relay, no container.

Anyone can connect to a tunnel, and a container can name any address. So neither side sends a request before the relay
has proved that it has the relay key.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from dataclasses import dataclass

from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import Session, SessionKeys
from modalflow.relay.messages import PART_SIZE, Direction, Header, unpack
from modalflow.support.text import one_line

#: The method of a container's request for a connection. Its target is the address. An older relay refuses it.
CONNECT = "CONNECT"
#: Seconds for a connection and its proof.
CONNECT_TIMEOUT = 5.0

_FRAME = struct.Struct(">IB")
_LARGEST_FRAME = PART_SIZE + 64 * 1024
_CHALLENGE_SIZE = 32
#: Bytes of a frame before the proof.
_LARGEST_PROOF = 4096
#: The request id of a proof. No request has it: theirs are numbers.
_PROOF = "proof"
#: Seconds of an idle connection until the kernel checks it, between checks, and how many fail before its end.
_KEEPALIVE = (30, 10, 3)


@dataclass(frozen=True)
class Address:
    """The public side of a tunnel."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'tcp'}://{host}:{self.port}"

    @classmethod
    def read(cls, text: str) -> Address:
        """Return the address of ``str()``; raise MalformedMessageError for any other text."""
        scheme, _, rest = text.partition("://")
        host, _, port = rest.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if scheme not in ("tls", "tcp") or not host or not port.isascii() or not port.isdigit() or len(port) > 5:
            raise MalformedMessageError(f"{one_line(repr(text), 80)} is no address of a tunnel")
        return cls(host, int(port), scheme == "tls")


class Wire:
    """One connection through a tunnel. Frames are an item, or a further item of a large message with its place."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._unanswered_since = 0.0
        self.proved_at = 0.0
        """When the relay's proof was there, by the monotonic clock."""
        _keep_alive(writer)

    async def read(self, most: int = _LARGEST_FRAME) -> tuple[str, bytes]:
        """Return the next frame: its place, and its item of ``most`` bytes.

        Raises EOFError, OSError or MalformedMessageError.
        """
        size, place_size = _FRAME.unpack(await self._reader.readexactly(_FRAME.size))
        if size > most:
            raise MalformedMessageError(f"A frame of a tunnel has {size} bytes; expected {most} at most")
        data = await self._reader.readexactly(place_size + size)
        self._unanswered_since = 0.0
        return data[:place_size].decode("ascii", "replace"), data[place_size:]

    def write(self, item: bytes, place: str = "") -> None:
        """Send a frame. It may wait here: see ``drained`` and ``waiting``."""
        self._unanswered_since = self._unanswered_since or time.monotonic()
        # In one piece: the loop writes it with one call of the system.
        self._writer.write(b"".join((_FRAME.pack(len(item), len(place)), place.encode("ascii"), item)))

    async def drained(self) -> None:
        """Return once little of the frames waits here."""
        await self._writer.drain()

    @property
    def waiting(self) -> int:
        """Bytes that wait here."""
        transport = self._writer.transport
        return transport.get_write_buffer_size()

    @property
    def silence(self) -> float:
        """Seconds since the first frame without any from the other side after it."""
        return time.monotonic() - self._unanswered_since if self._unanswered_since else 0.0

    @property
    def closed(self) -> bool:
        return self._writer.is_closing()

    def close(self) -> None:
        """End the connection; frames that wait here are lost."""
        self._writer.transport.abort()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Find a connection whose other side has gone without a word. Otherwise a proxy may also end an idle one."""
    found = writer.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for option, value in zip(options, _KEEPALIVE, strict=True):
            found.setsockopt(socket.IPPROTO_TCP, option, value)


async def check_relay(wire: Wire, session: Session) -> None:
    """Return once the other side has proved in a container that it is a relay.

    Raises EOFError, OSError or MalformedMessageError.
    """
    challenge = os.urandom(_CHALLENGE_SIZE)
    wire.write(challenge)
    _, item = await wire.read(_LARGEST_PROOF)
    raw, sealed = unpack(item)
    header = Header.read(raw)
    content = session.keys.open(Direction.ANSWER, raw, sealed)
    if content != challenge or header.request_id != _PROOF or header.session != session.name:
        raise MalformedMessageError("The proof of a relay is for another connection")
    wire.proved_at = time.monotonic()


async def prove_relay(wire: Wire, keys: SessionKeys, *, key_id: str, session: str, relay: str) -> None:
    """Prove to a container that this is a relay. Raises EOFError, OSError or MalformedMessageError."""
    _, challenge = await wire.read(_LARGEST_PROOF)
    if len(challenge) != _CHALLENGE_SIZE:
        raise MalformedMessageError("The other side of a tunnel is no container")
    header = Header(Direction.ANSWER, key_id, session, _PROOF, 1, time.time(), relay=relay)
    wire.write(keys.seal(header, challenge))
