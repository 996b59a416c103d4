"""The doors through which containers reach the control plane: a unix socket for each of them.

Owns the sockets and the knowledge of who is behind which. An RPC of a container says nothing of who sends it, so the
connection has to: what comes through a container's door is that container. The SDK takes ``unix://`` addresses in all
supported versions (``create_channel`` in its ``_utils/grpc_utils.py``), and whatever the container starts inherits the
address. What a door leads to is server.py's; which files a container sees, this one among them, is namespaces.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from modalflow.emulator.ids import new_id
from modalflow.emulator.state.scratch import Scratch
from modalflow.emulator.state.store import StateDir

#: Bytes that the path of a unix socket may have: 108 with the zero at its end on Linux, 104 elsewhere (unix(7)).
LONGEST_PATH = 103

_PREFIX = "modalflow-doors-"

#: Where the doors are if the folder for temporary files is deep down as well.
_SHORT = Path("/tmp")


def _is_too_deep(folder: Path) -> bool:
    return len(os.fsencode(folder / new_id("ta"))) > LONGEST_PATH


class Doors:
    """Opens and closes doors. ``lead_to`` before the first one is opened, ``close`` at the end."""

    def __init__(self, state: StateDir) -> None:
        self._folder = state.folder("doors")
        self._scratch: Scratch | None = None
        if _is_too_deep(self._folder):
            # Only a short path can be connected to, and the one way to shorten one, /proc/self/fd, leads each process
            # somewhere else.
            inside = Path(tempfile.gettempdir()).resolve()
            self._scratch = Scratch(_PREFIX, _SHORT if _is_too_deep(inside / f"{_PREFIX}{'x' * 8}") else inside)
            self._folder = self._scratch.path
        self._protocol: Callable[[], asyncio.Protocol] | None = None
        self._open: dict[str, tuple[str, asyncio.Server]] = {}

    @property
    def folder(self) -> Path:
        """Where the doors are."""
        return self._folder

    @property
    def elsewhere(self) -> tuple[Path, ...]:
        """The folder of the doors, where it is not in the state folder."""
        return () if self._scratch is None else (self._folder,)

    def lead_to(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """From now on each connection through a door is served by one of these."""
        self._protocol = protocol

    async def open(self, container_id: str) -> Path:
        """Open the container's door and return where it is."""
        if self._protocol is None:
            raise RuntimeError("a door was opened before it was known where it leads; call lead_to first")
        path = self._folder / container_id
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(path))
            path.chmod(0o600)
            server = await asyncio.get_running_loop().create_unix_server(self._protocol, sock=listening)
        except BaseException:
            listening.close()
            raise
        self._open[str(path)] = (container_id, server)
        return path

    def shut(self, container_id: str) -> None:
        """Close the container's door: nobody comes through any more, not even over an old connection."""
        path = str(self._folder / container_id)
        known = self._open.pop(path, None)
        if known is not None:
            known[1].close()
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()

    def behind(self, path: str) -> str | None:
        """Return the container whose door that is, None once it is shut."""
        known = self._open.get(path)
        return known[0] if known is not None else None

    def close(self) -> None:
        for container_id, _ in list(self._open.values()):
            self.shut(container_id)
        if self._scratch is not None:
            self._scratch.close()
