"""The unix sockets through which containers reach the control plane: one for each container.

Owns the sockets and which container is behind each of them. An RPC of a container does not name its sender, so the
connection identifies it: each container calls through its own socket. The SDK accepts
``unix://`` addresses in all supported versions (``create_channel`` in its ``_utils/grpc_utils.py``), and whatever the
container starts inherits the address. Which files a container sees, this socket among them, rootfs.py decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

from modalflow.emulator.ids import new_id
from modalflow.emulator.state.scratch import Scratch
from modalflow.emulator.state.state_dir import StateDir

#: Bytes that the path of a unix socket may have: 108 with the zero at its end on Linux, 104 elsewhere (unix(7)).
LONGEST_PATH = 103

#: Folders with this prefix were left by a control plane that was killed, also by one of an earlier version.
_PREFIX = "modalflow-doors-"

#: The folder for the sockets if the folder for temporary files has a long path, too.
_SHORT = Path("/tmp")


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    is_open = False
    """Whether it has been made, and neither side has closed it."""


class ContainerSockets:
    """Opens and closes the sockets. Call ``serve`` before the first one is opened, ``close`` at the end."""

    def __init__(self, state: StateDir) -> None:
        self._folder = state.folder("doors")
        self._scratch: Scratch | None = None
        if _is_too_long(self._folder):
            # A process can connect to a short path only, and the one way to shorten a path, /proc/self/fd, leads each
            # process to another place.
            inside = Path(tempfile.gettempdir()).resolve()
            self._scratch = Scratch(_PREFIX, _SHORT if _is_too_long(inside / f"{_PREFIX}{'x' * 8}") else inside)
            self._folder = self._scratch.path
        self._protocol: Callable[[], Connection] | None = None
        self._open: dict[str, tuple[str, asyncio.Server]] = {}
        self._connections: dict[str, weakref.WeakSet[Connection]] = {}

    @property
    def folder(self) -> Path:
        """The folder of the sockets."""
        return self._folder

    @property
    def outside_state(self) -> tuple[Path, ...]:
        """The folder of the sockets if it is outside the state folder."""
        return () if self._scratch is None else (self._folder,)

    def serve(self, protocol: Callable[[], Connection]) -> None:
        """Serve each connection through a socket with a protocol of its own, from now on."""
        self._protocol = protocol

    async def open(self, container_id: str) -> Path:
        """Open the socket of a container and return its path."""
        if self._protocol is None:
            raise RuntimeError("the socket of a container was opened before the server was started; call serve first")
        path = self._folder / container_id
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(path))
            path.chmod(0o600)
            server = await asyncio.get_running_loop().create_unix_server(
                partial(self._connection, container_id, self._protocol), sock=listening
            )
        except BaseException:
            listening.close()
            raise
        self._open[str(path)] = (container_id, server)
        return path

    def _connection(self, container_id: str, protocol: Callable[[], Connection]) -> Connection:
        made = protocol()
        self._connections.setdefault(container_id, weakref.WeakSet()).add(made)
        return made

    def is_connected(self, container_id: str) -> bool:
        """Return whether a container has a connection open."""
        return any(connection.is_open for connection in self._connections.get(container_id, ()))

    def close_socket(self, container_id: str) -> None:
        """Close the socket of a container: calls over existing connections are refused too."""
        self._connections.pop(container_id, None)
        path = str(self._folder / container_id)
        known = self._open.pop(path, None)
        if known is not None:
            known[1].close()
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()

    def container_behind(self, path: str) -> str | None:
        """Return the id of the container whose socket that is, None once the socket is closed."""
        known = self._open.get(path)
        return known[0] if known is not None else None

    def close(self) -> None:
        for container_id, _ in list(self._open.values()):
            self.close_socket(container_id)
        if self._scratch is not None:
            self._scratch.close()


def _is_too_long(folder: Path) -> bool:
    return len(os.fsencode(folder / new_id("ta"))) > LONGEST_PATH
