"""The gRPC server: grpclib's, with an end that closes all connections, and with fewer writes.

Owns the connections. The dispatcher answers on them.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from grpclib.protocol import H2Protocol
from grpclib.server import Server

from modalflow.emulator.rpc.container_sockets import Connection


class GatheringTransport:
    """A transport that sends everything written in one turn of the event loop at once.

    An answer has three frames (headers, message, trailers), and grpclib writes each one separately. Sending is most of
    the work of a short call, and each write wakes the other side.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            self._transport.write(b"".join(written))


class GatheringProtocol(H2Protocol, Connection):
    """The protocol of one connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gathering: Any = GatheringTransport(transport)  # type: ignore[arg-type]
        super().connection_made(gathering)
        self.is_open = True

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_open = False
        super().connection_lost(exc)


class ClosingServer(Server):
    """A server that closes its connections when it ends.

    Since Python 3.12 an asyncio server is closed only with its last connection, and clients keep their connections
    open.
    """

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def protocol(self) -> GatheringProtocol:
        """Return a protocol for one connection, through any socket."""
        made = super()._protocol_factory()
        protocol = GatheringProtocol(made.handler, made.config, made.h2_config)
        self._protocols.add(protocol)
        return protocol

    _protocol_factory = protocol

    async def wait_closed(self) -> None:
        """Wait for the end of all calls under way, then close all connections."""
        await asyncio.gather(*(handler.wait_closed() for handler in self._handlers))
        for protocol in self._protocols:
            protocol.connection.close()
        await super().wait_closed()
