"""grpclib's server as this control plane needs it: one that ends, and that writes as seldom as it can.

Owns connections. What is answered on them is rpc.py's.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from grpclib.protocol import H2Protocol
from grpclib.server import Server


class GatheringTransport:
    """A connection's transport that sends all that was written in one turn of the event loop at once.

    An answer is three frames (headers, message, trailers), each of which grpclib writes as it comes: sending them is
    most of the work of a short call, and each waking of the other side costs that a turn.
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


class GatheringProtocol(H2Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gathering: Any = GatheringTransport(transport)  # type: ignore[arg-type]
        super().connection_made(gathering)


class ClosingServer(Server):
    """A server that ends its connections as well when it ends.

    Since Python 3.12 an asyncio server is closed only when its last connection is, and a client keeps its own for as
    long as it lives.
    """

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def protocol(self) -> H2Protocol:
        """Return what serves one connection, of whichever socket."""
        made = super()._protocol_factory()
        protocol = GatheringProtocol(made.handler, made.config, made.h2_config)
        self._protocols.add(protocol)
        return protocol

    _protocol_factory = protocol

    async def wait_closed(self) -> None:
        """Wait until all that is being answered has ended, and all connections with it."""
        await asyncio.gather(*(handler.wait_closed() for handler in self._handlers))
        for protocol in self._protocols:
            protocol.connection.close()
        await super().wait_closed()
