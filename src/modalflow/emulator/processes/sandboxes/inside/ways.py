"""The connections of a gateway through the socket of the control plane.

Owns the connections and the threads that copy their data.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator

_LOOPBACK = "127.0.0.1"
_CONNECTED = b"+"
_CHUNK = 64 * 1024

#: Seconds between two checks whether a snapshot is over.
_STEP = 0.01


class Ways:
    """The connections through the socket of the control plane, each with threads that copy its data."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: set[socket.socket] = set()
        """The ends of connections: those to the control plane, and those to programs of the container."""
        self._changed = threading.Condition()
        self._closing = False

    def open(self, *request: object) -> socket.socket:
        """Return a connection to the control plane that begins with a request; OSError if that is impossible."""
        there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._add(there)
        try:
            self._begin(there, request)
        except BaseException:
            self.remove(there)
            raise
        return there

    def _add(self, end: socket.socket) -> None:
        with self._changed:
            if self._closing:
                raise ConnectionResetError("a snapshot is about to be taken")
            self._open.add(end)

    def connected(self, *request: object) -> socket.socket:
        """Return a connection that the caller closes, also before a snapshot."""
        there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._begin(there, request)
        return there

    def _begin(self, there: socket.socket, request: tuple[object, ...]) -> None:
        there.connect(self._path)
        there.sendall(json.dumps(request).encode() + b"\n")

    def remove(self, *ends: socket.socket) -> None:
        """Close the ends of a connection."""
        with self._changed:
            for each in ends:
                each.close()
            self._open.difference_update(ends)
            self._changed.notify_all()

    @contextlib.contextmanager
    def closed(self, is_over: Callable[[], bool]) -> Iterator[None]:
        """Have no connections: end those that are open, and wait until they are closed, or the snapshot is over."""
        with self._changed:
            self._closing = True
            for each in self._open:
                with contextlib.suppress(OSError):
                    # A program of the container may keep its end open, and without a reset it would not see the end.
                    _reset_at_close(each)
                    each.shutdown(socket.SHUT_RDWR)
            while self._open and not is_over():
                self._changed.wait(_STEP)
        yield
        self._closing = False

    def pass_on(self, connection: socket.socket, host: str, port: int) -> None:
        """Connect a connection of the container to its destination."""
        with connection:
            there = self.open("connect", host, port)
            try:
                self._add(connection)
                if there.recv(1) == _CONNECTED:
                    _copy_both(connection, there)
                else:
                    # The program in the container gets an error, as from a machine that refuses it.
                    _reset_at_close(connection)
            finally:
                self.remove(connection, there)

    def answer(self, port: int, id: str) -> None:
        """Connect the control plane to a port of the container."""
        there = self.open("answer", id)
        try:
            inside = socket.create_connection((_LOOPBACK, port))
            try:
                self._add(inside)
                there.sendall(_CONNECTED)
                _copy_both(inside, there)
            finally:
                self.remove(inside)
        finally:
            self.remove(there)

    def ask(self, datagrams: socket.socket, query: bytes, client: tuple[str, int]) -> None:
        """Answer a datagram by the one that the control plane gets for it."""
        there = self.open("ask", *datagrams.getsockname())
        try:
            there.sendall(struct.pack("!H", len(query)) + query)
            answer = b"".join(iter(lambda: there.recv(_CHUNK), b""))
        finally:
            self.remove(there)
        if answer:
            datagrams.sendto(answer, client)


def _reset_at_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def in_thread(work: Callable[..., None], *arguments: object) -> None:
    def run() -> None:
        # A connection that fails is closed, and its program sees that.
        with contextlib.suppress(OSError):
            work(*arguments)

    threading.Thread(target=run, daemon=True).start()


def _copy_both(one: socket.socket, other: socket.socket) -> None:
    """Copy data in both directions until both have ended."""
    back = threading.Thread(target=_copy, args=(other, one), daemon=True)
    back.start()
    _copy(one, other)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy data until one end is closed, and end the other one's direction."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
        return
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
