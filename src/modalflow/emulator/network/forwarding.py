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

#: Chunks under way in one direction, if they are delayed.
_UNDER_WAY = 64

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]
Delay = Callable[[], float]
"""Returns the seconds of one direction, anew for each use."""


class Forwarding:
    """One listening socket and its connections. ``close`` ends all of them."""

    def __init__(self, server: asyncio.Server, tasks: set[asyncio.Task[None]]) -> None:
        self._server, self._tasks = server, tasks

    @classmethod
    async def start(cls, listener: socket.socket, connect: Connect, delay: Delay | None = None) -> Forwarding:
        """Serve a listening socket, which is closed at the end; ``connect`` opens the other side of a connection.

        If that raises OSError, the connection is closed without an answer. With ``delay``, each piece of data arrives
        later, in order and without holding up the next one.
        """
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await _pass_on((reader, writer), connect, delay)
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


async def _pass_on(ours: Connection, connect: Connect, delay: Delay | None) -> None:
    # The first error of one direction ends both; so does the end of the forwarding.
    with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(ours[1]):
        if delay is not None:
            # A handshake goes both ways before the first data.
            await asyncio.sleep(delay() + delay())
        theirs = await connect()
        with contextlib.closing(theirs[1]):
            await _copy_both(ours, theirs, delay)


async def connect_both(one: Connection, other: Connection) -> None:
    """Copy data in both directions until both have ended, and close ``other``; OSError if a connection fails."""
    with contextlib.closing(other[1]):
        await _copy_both(one, other, None)


async def _copy_both(one: Connection, other: Connection, delay: Delay | None) -> None:
    ways = [(one[0], other[1]), (other[0], one[1])]
    copies = [asyncio.ensure_future(_copy(*way) if delay is None else _copy_late(*way, delay)) for way in ways]
    try:
        await asyncio.gather(*copies)
    finally:
        for copy in copies:
            copy.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    _end(writer)


async def _copy_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Delay) -> None:
    """Copy with a delay, from one task that reads and another one that writes when it is time."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)

    async def read() -> None:
        due, data = 0.0, b"-"
        while data:
            data = await reader.read(_CHUNK)
            # Never before the piece before it.
            due = max(due, loop.time() + delay())
            await under_way.put((due, data))

    async def write() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        _end(writer)

    both = [asyncio.ensure_future(read()), asyncio.ensure_future(write())]
    try:
        await asyncio.gather(*both)
    finally:
        for each in both:
            each.cancel()


def _end(writer: asyncio.StreamWriter) -> None:
    """End one direction; the other one may go on."""
    if writer.can_write_eof():
        writer.write_eof()
