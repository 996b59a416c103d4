"""The control plane as a whole: its start, its address and its end.

Owns the order in which the parts start and end. How they are joined is wiring.py's matter.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from grpclib.server import Server

from modalflow.emulator.control_plane.wiring import grpc_server, wire
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.fork_server import TemplateError
from modalflow.emulator.rpc.grpc_server import ClosingServer
from modalflow.emulator.state.state_dir import StateDir


class ListenError(RuntimeError):
    """The control plane cannot listen at its address. The text says why and what to do."""


class NetworkError(RuntimeError):
    """Containers cannot have a network of their own. The text says why and what to do."""


class IsolationError(RuntimeError):
    """Containers cannot have the chosen isolation. The text says why and what to do."""


class ControlPlane:
    """One local control plane. Start and close it on the same event loop, from a thread that lives as long as it."""

    def __init__(self, options: Options | None = None, *, isolation: Isolation | None = None) -> None:
        """Without ``isolation``, containers get the best kind that works on this machine."""
        self.options = options or Options()
        self.state = StateDir(self.options.state_dir)
        try:
            self.parts = wire(self.options, self.state, isolation)
        except BaseException:
            self.state.close()
            raise
        self._loops: list[asyncio.Task[None]] = []
        self._server: ClosingServer | None = None
        self.url = ""
        """The address for clients; empty before the start."""

    async def start(self) -> None:
        """Listen; ``url`` is the address afterwards."""
        parts = self.parts
        for spec in self.options.fault_rules:
            parts.front.faults.add(spec)
        parts.base.fork_server.start()
        if self.options.isolation is not None:
            await self._check_isolation()
        if self.options.network == "none":
            await self._check_network()
        await parts.front.file_server.start()
        self._server = server = await self._listen()
        parts.base.sockets.serve(server.protocol)
        parts.storage.volumes.start()
        self._resume()
        self._loops = [asyncio.create_task(parts.housekeeping.run()), asyncio.create_task(parts.memory_watch.run())]

    async def _check_isolation(self) -> None:
        """IsolationError if the chosen isolation does not work on this machine."""
        try:
            await self.parts.base.fork_server.isolation()
        except TemplateError as error:
            raise IsolationError(str(error)) from error

    async def _check_network(self) -> None:
        """NetworkError if containers would have the host's network in spite of the option."""
        fork_server = self.parts.base.fork_server
        if await fork_server.isolation() is Isolation.PLAIN:
            problems = "; ".join(f"isolation {kind!r}: {problem}" for kind, problem in fork_server.problems.items())
            raise NetworkError(
                "--network none needs namespaces, and this machine allows none"
                f"{f' ({problems})' if problems else ''}; allow user namespaces, or choose --network host"
            )

    async def _listen(self) -> ClosingServer:
        server = grpc_server(self.parts.front.dispatcher)
        host = self.options.host
        try:
            await server.start(host, self.options.port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            raise ListenError(
                f"cannot listen on port {self.options.port} of {host} ({reason}); "
                "stop the other program, or choose another --port"
            ) from error
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{_port(server)}"
        return server

    def _resume(self) -> None:
        """Continue the work of an earlier control plane: first its inputs, then the containers that functions keep."""
        functions, pools = self.parts.execution.functions, self.parts.execution.pools
        pools.resume(self.parts.execution.unfinished)
        for function in functions:
            if not function.callable_reason and pools.scaling(function).min_containers:
                pools.rescale(function)

    async def close(self) -> None:
        """End all containers, then the server; a temporary state folder is removed."""
        parts = self.parts
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await parts.front.faults.close()
        await parts.front.images.close()
        # The server answers until the last container has ended: containers commit their volumes at exit.
        await parts.execution.pools.close()
        parts.base.fork_server.close()
        await parts.storage.volumes.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await parts.front.file_server.close()
        self.release()

    def release(self) -> None:
        """Release the sockets and the state folder of a control plane that was closed, or never started."""
        self.parts.base.sockets.close()
        self.parts.execution.snapshots.close()
        self.state.close()


def _port(server: Server) -> int:
    """Return the port that the system chose. grpclib keeps the asyncio server private."""
    inner: Any = server._server
    if inner is None or not inner.sockets:
        raise RuntimeError("the server did not start to listen")
    return int(inner.sockets[0].getsockname()[1])
