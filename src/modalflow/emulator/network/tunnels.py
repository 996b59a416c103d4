"""Tunnels: a port of a container, reached through a port of this machine (modal.forward).

Owns the tunnels of each container. They end with it.
"""

from __future__ import annotations

import socket
from functools import partial

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.network.forwarding import Delay, Forwarding
from modalflow.emulator.network.networks import Networks
from modalflow.emulator.processes.process import Process
from modalflow.emulator.rpc.idempotency import CHANGE
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message

#: Tunnels of one container at once. On modal.com the limit is not documented.
MOST = 100

_LAST_PORT = 65535


class OpenTunnels:
    """The tunnels of all running containers."""

    def __init__(self, host: str, networks: Networks, delay: Delay | None = None) -> None:
        """Listen on the ``host``, a loopback address; with ``delay``, as far away from containers as that."""
        self._host, self._networks, self._delay = host, networks, delay
        self._open: dict[tuple[str, int], Forwarding | None] = {}

    async def start(self, container_id: str, process: Process, port: int) -> tuple[str, int]:
        """Return the address of a new tunnel; GRPCError if there is one for this port, or too many."""
        key = (container_id, port)
        if key in self._open:
            raise GRPCError(Status.ALREADY_EXISTS, f"Port {port} is already forwarded")
        if sum(each == container_id for each, _ in self._open) >= MOST:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"The container has {MOST} tunnels; end one before you add one")
        # Before the first await: a second request for the port must find it.
        self._open[key] = None
        try:
            listener = socket.create_server((self._host, 0), family=_family(self._host))
            tunnel = await Forwarding.start(
                listener, partial(self._networks.connect, container_id, process, port), self._delay
            )
        except BaseException:
            self._open.pop(key, None)
            raise
        if key not in self._open:
            tunnel.close()
            raise GRPCError(Status.FAILED_PRECONDITION, "The container has ended")
        self._open[key] = tunnel
        return tunnel.address

    def stop(self, container_id: str, port: int) -> bool:
        """End a tunnel and its connections; return whether there was one."""
        key = (container_id, port)
        if key not in self._open:
            return False
        tunnel = self._open.pop(key)
        if tunnel is not None:
            tunnel.close()
        return True

    def leave(self, container_id: str) -> None:
        """End all tunnels of a container."""
        for owner, port in list(self._open):
            if owner == container_id:
                self.stop(owner, port)


class Tunnels(Service):
    """The Tunnel RPCs."""

    def __init__(self, containers: Containers, tunnels: OpenTunnels) -> None:
        self._containers, self._tunnels = containers, tunnels

    @rpc(
        repeat=CHANGE,
        inferred="only with `unencrypted=True`: a port on this machine's loopback, the same for host and "
        "unencrypted_host.",
    )
    async def TunnelStart(self, request: api_pb2.TunnelStartRequest, caller: Caller) -> api_pb2.TunnelStartResponse:
        container_id, process = self._process(caller)
        if not request.unencrypted:
            raise GRPCError(
                Status.UNIMPLEMENTED,
                "The local control plane has no certificates for encrypted tunnels; "
                "use modal.forward(port, unencrypted=True)",
            )
        if not 1 <= request.port <= _LAST_PORT:
            raise GRPCError(Status.INVALID_ARGUMENT, f"Port {request.port} is not a port; expected 1 to {_LAST_PORT}")
        host, port = await self._tunnels.start(container_id, process, request.port)
        return message(api_pb2.TunnelStartResponse, host=host, port=port, unencrypted_host=host, unencrypted_port=port)

    @rpc(repeat=CHANGE, needs_room=False)
    async def TunnelStop(self, request: api_pb2.TunnelStopRequest, caller: Caller) -> api_pb2.TunnelStopResponse:
        if caller.container_id is None:
            raise _not_a_container()
        return message(api_pb2.TunnelStopResponse, exists=self._tunnels.stop(caller.container_id, request.port))

    def _process(self, caller: Caller) -> tuple[str, Process]:
        container = self._containers.find(caller.container_id)
        if container is None or caller.container_id is None:
            raise _not_a_container()
        if container.process is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "The container has no process yet")
        return caller.container_id, container.process


def _not_a_container() -> GRPCError:
    return GRPCError(Status.PERMISSION_DENIED, "Only a container can forward its ports")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
