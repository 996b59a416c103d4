"""TCP connections passed on: whatever connects to one place is connected to another.

Owns the copying of bytes and the end of connections. The two places may be in different networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

#: Bytes copied at once.
_CHUNK = 256 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


class Forwarding:
    """One listening socket and its connections. ``close`` ends all of them."""

    def __init__(self, server: asyncio.Server, tasks: set[asyncio.Task[None]]) -> None:
        self._server, self._tasks = server, tasks

    @classmethod
    async def start(cls, listener: socket.socket, connect: Connect) -> Forwarding:
        """Serve a listening socket, which is closed at the end; ``connect`` opens the other side of a connection.

        If that raises OSError, the connection is closed without an answer.
        """
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await _pass_on((reader, writer), connect)
            finally:
                tasks.discard(task)

        return cls(await asyncio.start_server(serve, sock=listener, limit=_CHUNK), tasks)

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of the listening socket."""
        host, port, *_ = self._server.sockets[0].getsockname()
        return host, port

    def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()


async def _pass_on(ours: Connection, connect: Connect) -> None:
    # The first error of one direction ends both; so does the end of the forwarding.
    with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(ours[1]):
        theirs = await connect()
        with contextlib.closing(theirs[1]):
            copies = [
                asyncio.ensure_future(_copy(ours[0], theirs[1])),
                asyncio.ensure_future(_copy(theirs[0], ours[1])),
            ]
            try:
                await asyncio.gather(*copies)
            finally:
                for copy in copies:
                    copy.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    # The other direction may go on.
    if writer.can_write_eof():
        writer.write_eof()
