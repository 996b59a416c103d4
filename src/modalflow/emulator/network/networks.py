"""The networks of containers as the control plane uses them: what a container reaches, and how it is reached.

Owns, for each container with a network of its own, the way from there to the control plane's HTTP server, through which
large values pass. Everything else of a container goes over its unix socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from modalflow.emulator.network.forwarding import Connection, Forwarding
from modalflow.emulator.network.gateways import Gateway, machine_ports
from modalflow.emulator.processes.fork_server import ForkServer
from modalflow.emulator.processes.process import Process
from modalflow.emulator.processes.sandboxes.inside import ALL, CONTROL_PLANE
from modalflow.emulator.services.addresses import Addresses

#: Where programs in a container usually listen.
_LOOPBACK = "127.0.0.1"


class Networks:
    """The networks of all running containers."""

    def __init__(self, addresses: Addresses, fork_server: ForkServer, *, own: bool) -> None:
        """Each container has its ``own`` network, or all have the host's."""
        self._addresses, self._fork_server, self._own = addresses, fork_server, own
        self._ways: dict[str, Forwarding] = {}
        self._gateways: dict[str, Gateway] = {}

    async def gateway(self, container_id: str, folder: Path) -> str:
        """Open the other side of a container's gateway in a folder that both share; return what it reaches."""
        gateway = self._gateways[container_id] = Gateway(folder, self._ports, reaches_all=not self._own)
        await gateway.start()
        return CONTROL_PLANE if self._own else ALL

    def _ports(self) -> Iterable[int]:
        return (self._addresses.address[1],) if self._own else machine_ports()

    async def pause(self, container_id: str) -> None:
        """Let a container's gateway close its connections, and wait until it has."""
        if (gateway := self._gateways.get(container_id)) is not None:
            await gateway.pause()

    @property
    def own_network(self) -> tuple[str, int] | None:
        """The address to listen at in a container's own network; None if containers have the host's."""
        return self._addresses.address if self._own else None

    async def join(self, container_id: str, process: Process) -> None:
        """Lead the connections of a new container's network to the control plane."""
        if process.listener is None:
            return
        listener, process.listener = process.listener, None
        self._ways[container_id] = await Forwarding.start(listener, self._to_http_server)

    def leave(self, container_id: str) -> None:
        """End the connections of a container. Harmless for one without a network of its own."""
        for way in (self._ways.pop(container_id, None), self._gateways.pop(container_id, None)):
            if way is not None:
                way.close()

    async def connect(self, container_id: str, process: Process, port: int) -> Connection:
        """Connect to a port in a container; OSError if nothing listens there."""
        gateway = self._gateways.get(container_id)
        if gateway is not None and gateway.is_connected:
            return await gateway.connect(port)
        if not self._own:
            return await asyncio.open_connection(_LOOPBACK, port)
        there = await self._fork_server.socket_in(process)
        try:
            there.setblocking(False)
            await asyncio.get_running_loop().sock_connect(there, (_LOOPBACK, port))
            return await asyncio.open_connection(sock=there)
        except BaseException:
            there.close()
            raise

    async def _to_http_server(self) -> Connection:
        return await asyncio.open_connection(*self._addresses.address)
