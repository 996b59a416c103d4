"""The pollers of this process: one for each event loop and connection."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from modalflow import control_plane
from modalflow.control_plane import ControlPlane
from modalflow.function_calls.connection import connected_in_triggerer
from modalflow.function_calls.function_calls import FunctionCalls
from modalflow.triggers.call_poller import CallPoller


class Connection:
    """A connection to Modal for all triggers with one connection id, made at the first use."""

    def __init__(self, conn_id: str | None) -> None:
        self._conn_id = conn_id
        self._lock = asyncio.Lock()
        self._control_plane: ControlPlane | None = None
        self._calls: FunctionCalls | None = None
        self.poller = CallPoller(self.calls, self.forget)

    async def calls(self) -> FunctionCalls:
        """Return the function calls of this connection. Raises CredentialsError or ControlPlaneUnreachableError."""
        async with self._lock:
            if self._calls is None:
                self._control_plane = await connected_in_triggerer(self._conn_id)
                self._calls = FunctionCalls(self._control_plane)
            return self._calls

    def forget(self) -> None:
        """Make the next use read the credentials again."""
        if self._control_plane is not None:
            control_plane.forget(self._control_plane)
        self._control_plane = self._calls = None


_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str | None, Connection]] = WeakKeyDictionary()


def connection(conn_id: str | None) -> Connection:
    """Return the connection of this event loop with a connection id."""
    of_loop = _connections.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in of_loop:
        of_loop[conn_id] = Connection(conn_id)
    return of_loop[conn_id]
