"""The gateway of a container with a memory snapshot: connections to other machines, and from the control plane.

gVisor cannot write a container in the machine's network to a file. Such a container has gVisor's own network, and this
program leads its connections through a unix socket of the control plane. It starts before the container's program, and
is part of the snapshot: it closes its connections before the checkpoint, and opens new ones afterwards.
``network/gateways.py`` is the other side.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import time

from . import ALL, NO_GATEWAY, PENDING_STATE, RESTORED, SOCKET, STATE, netstack
from .ways import Ways, in_thread

_LOOPBACK = "127.0.0.1"
_DNS = 53
_CHUNK = 64 * 1024
_LONGEST_DATAGRAM = 65535

#: Seconds between two checks whether the container is restored.
_STEP = 0.01

#: The capabilities that only this program has.
_OWN_CAPABILITIES = (12, 13)
_PR_CAPBSET_DROP = 24


def main(reach: str, folder: str, *command: str) -> None:
    """Start the gateway, and run the command in this process without the gateway's rights."""
    gateway = Gateway(reach, folder)
    try:
        gateway.open()
    except OSError as error:
        os.write(2, f"modalflow: {error}\n".encode())
        os._exit(NO_GATEWAY)
    if os.fork() == 0:
        _become_daemon()
        gateway.serve()
        os._exit(0)
    gateway.close()
    libc = ctypes.CDLL(None, use_errno=True)
    for number in _OWN_CAPABILITIES:
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "a capability cannot be dropped")
    os.execvp(command[0], command)


def _become_daemon() -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


class Gateway:
    """The listening sockets of the gateway and the connection to the control plane that says what to do."""

    def __init__(self, reach: str, folder: str) -> None:
        self._reach, self._folder = reach, folder
        self._ways = Ways(os.path.join(folder, SOCKET))
        self._listeners: dict[int, socket.socket] = {}
        """Port → the socket that stands for the one of the machine."""
        self._fixed: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self) -> None:
        """Set up the network."""
        self._selector = selectors.DefaultSelector()
        if self._reach != ALL:
            return
        netstack.accept_all_addresses()
        listener = _listening(0)
        netstack.redirect_to(listener.getsockname()[1])
        self._fixed.append(listener)
        for address in name_servers():
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                datagrams.bind((address, _DNS))
            except OSError:
                datagrams.close()
            else:
                self._fixed.append(datagrams)

    def close(self) -> None:
        """Close everything that listens."""
        self._selector.close()
        for each in (*self._fixed, *self._listeners.values()):
            each.close()
        self._fixed.clear()
        self._listeners.clear()

    def serve(self) -> None:
        """Serve before the snapshot and after it."""
        self._serve_until_closed()
        with self._ways.closed(self._is_restored):
            # The control plane waits for the end of this last connection.
            self._control.close()
            while not self._is_restored():
                time.sleep(_STEP)
        try:
            self.open()
        except OSError as error:
            # The container goes on without a network.
            self._serve_until_closed(str(error))
        else:
            self._serve_until_closed()

    def _is_restored(self) -> bool:
        return os.path.exists(os.path.join(self._folder, RESTORED))

    def _serve_until_closed(self, problem: str = "") -> None:
        """Serve until the control plane ends its direction of the control connection, and report a problem to it."""
        control = self._control = self._ways.connected("control", problem)
        lines = b""
        for each in (control, *self._fixed):
            self._selector.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is not control:
                    self._accept(ready)
                    continue
                received = control.recv(_CHUNK)
                if not received:
                    self.close()
                    return
                *whole, lines = (lines + received).split(b"\n")
                for line in whole:
                    self._obey(json.loads(line))

    def _accept(self, ready: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if ready.type == socket.SOCK_DGRAM:
                query, client = ready.recvfrom(_LONGEST_DATAGRAM)
                in_thread(self._ways.ask, ready, query, client)
                return
            connection, _ = ready.accept()
            in_thread(self._ways.pass_on, connection, *netstack.destination(connection))

    def _obey(self, request: dict[str, object]) -> None:
        """Carry out a request: the ports of the machine, or a connection to a port of the container."""
        if isinstance(ports := request.get("ports"), list):
            self._mirror({int(port) for port in ports})
            # The first request after a restoration: Modal's runtime may go on.
            with contextlib.suppress(FileNotFoundError):
                if self._is_restored():
                    os.rename(os.path.join(self._folder, PENDING_STATE), os.path.join(self._folder, STATE))
        elif isinstance(port := request.get("connect"), int):
            in_thread(self._ways.answer, port, str(request.get("id")))

    def _mirror(self, ports: set[int]) -> None:
        for port in self._listeners.keys() - ports:
            self._selector.unregister(self._listeners[port])
            self._listeners.pop(port).close()
        for port in ports - self._listeners.keys():
            with contextlib.suppress(OSError):
                # The container's own programs may listen there.
                self._listeners[port] = _listening(port)
                self._selector.register(self._listeners[port], selectors.EVENT_READ)


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # An earlier connection from this port may not have timed out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_LOOPBACK, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def name_servers() -> list[str]:
    """Return the addresses of the name servers for IPv4."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return []
    return [each[1] for each in words if len(each) > 1 and each[0] == "nameserver" and ":" not in each[1]]
