"""The connections of containers with a memory snapshot, which are in a network of gVisor's own.

Owns the control plane's side of each gateway; ``processes/sandboxes/inside/gateway.py`` is the container's. A gateway
asks for connections to other places, and has to be asked for connections to the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from modalflow.emulator.ids import new_id
from modalflow.emulator.network.forwarding import Connection, connect_both
from modalflow.emulator.processes.sandboxes.inside import SOCKET

log = logging.getLogger(__name__)

_CONNECTED = b"+"
_CHUNK = 64 * 1024

#: The one address of the loopback for which a gateway listens.
_LOOPBACK = "127.0.0.1"

#: Seconds between two checks of the ports at which this machine listens.
PORTS_INTERVAL = 1.0

#: Seconds to wait for the answer to a datagram.
_ANSWER_PATIENCE = 5.0

#: From Python 3.13 on, a server removes its socket when it ends. The path of this one is valid only at its start; the
#: folder is removed with the container.
_KEPT: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

#: The state of a listening socket in /proc/net/tcp and tcp6, and the addresses of the loopback and of all interfaces
#: there. A program that listens at all addresses of IPv6 usually has those of IPv4 too.
_LISTENING, _REACHABLE = "0A", ("0100007F", "00000000", f"{'0' * 16}FFFF00000100007F", "0" * 32)


class Gateway:
    """The control plane's side of one container's gateway."""

    def __init__(self, folder: Path, ports: Callable[[], Iterable[int]], *, reaches_all: bool) -> None:
        """``folder`` is shared with the gateway. ``ports`` returns those of the loopback that the container reaches.

        With ``reaches_all``, it also reaches all other addresses.
        """
        self._folder, self._ports, self._reaches_all = folder, ports, reaches_all
        self._server: asyncio.Server | None = None
        self._control: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._controlled: set[asyncio.Task[None]] = set()
        self._answers: dict[str, asyncio.Future[Connection]] = {}

    async def start(self) -> None:
        """Listen for the gateway."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self._folder, os.O_PATH)
        try:
            # The path of the folder may be too long for a socket.
            listening.bind(f"/proc/self/fd/{folder}/{SOCKET}")
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, **_KEPT)
        except BaseException:
            listening.close()
            raise
        finally:
            os.close(folder)

    @property
    def is_connected(self) -> bool:
        """Whether the container has a running gateway."""
        return self._control is not None

    def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for task in (*self._tasks, *self._controlled):
            task.cancel()

    async def pause(self) -> None:
        """Let the gateway close its connections, and wait until it has; it comes back after a restoration."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.write_eof()
        await asyncio.gather(*self._controlled, return_exceptions=True)

    async def connect(self, port: int) -> Connection:
        """Connect to a port in the container; OSError if nothing listens there."""
        if self._control is None:
            raise ConnectionRefusedError("the container is not ready for connections")
        id = new_id("wy")
        answer: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._answers[id] = answer
        try:
            self._request(id=id, connect=port)
            async with asyncio.timeout(_ANSWER_PATIENCE):
                return await answer
        finally:
            self._answers.pop(id, None)

    def _request(self, **what: object) -> None:
        assert self._control is not None
        self._control.write(json.dumps(what).encode() + b"\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        refused = (OSError, ValueError, OverflowError, RecursionError, asyncio.IncompleteReadError)
        with contextlib.suppress(*refused, asyncio.CancelledError):
            request = await _request_of(reader, writer)
            is_control = isinstance(request, list) and request[:1] == ["control"]
            tasks = self._controlled if is_control else self._tasks
            tasks.add(task)
            try:
                await self._answer(request, (reader, writer))
            finally:
                tasks.discard(task)

    async def _answer(self, request: object, there: Connection) -> None:
        match request:
            case ["answer", str(id)] if (answer := self._answers.pop(id, None)) is not None:
                # The other side has a connection, or it ends this one.
                connected = await there[0].read(1) == _CONNECTED
                if connected and not answer.done():
                    answer.set_result(there)
                    return
                if not answer.done():
                    answer.set_exception(ConnectionRefusedError("nothing listens at the port"))
        with contextlib.closing(there[1]):
            match request:
                case ["control", str(problem)]:
                    if problem:
                        log.warning("a restored container has no network: %s", problem)
                    await self._serve_control(there)
                case ["connect", str(host), int(port)] if self._may_reach(host, port):
                    way = await asyncio.open_connection(host, port)
                    there[1].write(_CONNECTED)
                    await connect_both(there, way)
                case ["ask", str(host), int(port)] if self._reaches_all and self._may_reach(host, port):
                    await _ask(there, host, port)

    def _may_reach(self, host: str, port: int) -> bool:
        # A name would be looked up on the event loop. AddressValueError is a ValueError.
        address = str(ipaddress.IPv4Address(host))
        return self._reaches_all or (address == _LOOPBACK and port in set(self._ports()))

    async def _serve_control(self, control: Connection) -> None:
        self._control = control[1]
        ended = asyncio.ensure_future(_until_end(control[0]))
        sent: set[int] | None = None
        try:
            while not ended.done():
                ports = set(self._ports())
                if ports != sent and not control[1].is_closing():
                    self._request(ports=sorted(ports))
                    sent = ports
                await asyncio.wait([ended], timeout=PORTS_INTERVAL)
        finally:
            self._control = None
            ended.cancel()


async def _request_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> object:
    """Read the first line of a connection, and end the connection if that is no request."""
    try:
        return json.loads(await reader.readline())
    except BaseException:
        writer.close()
        raise


async def _until_end(reader: asyncio.StreamReader) -> None:
    """Wait for the end of a connection. A container could send without end, so nothing is kept."""
    while await reader.read(_CHUNK):
        pass


async def _ask(there: Connection, host: str, port: int) -> None:
    """Send one datagram, and its first answer back."""
    (size,) = struct.unpack("!H", await there[0].readexactly(2))
    query = await there[0].readexactly(size)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        datagrams.connect((host, port))
        datagrams.send(query)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_PATIENCE):
                there[1].write(await loop.sock_recv(datagrams, 65535))


def machine_ports() -> set[int]:
    """Return the ports at which programs of this machine listen on the loopback for IPv4, some of them for IPv6 too."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                address, _, port = words[1].partition(":")
                if words[3] == _LISTENING and address in _REACHABLE:
                    found.add(int(port, 16))
    return found
