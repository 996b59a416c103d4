"""The network of containers: nothing but a loopback of their own, and ports that are reached through tunnels."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
from collections.abc import Iterator
from typing import Any

import modal
import pytest
from modal_proto import api_pb2

from modalflow.emulator.control_plane.control_plane import ControlPlane, NetworkError
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from tests.contract.deploying import Deployed
from tests.contract.isolated import problem_with, running
from tests.sdk import rpc
from tests.support import wait_until

#: More than an RPC may hold, and more than a socket buffers.
LARGE = 9 * 2**20


@contextlib.contextmanager
def without_network(isolation: Isolation) -> Iterator[Deployed]:
    """The app on a control plane whose containers have a loopback alone."""
    if problem := problem_with(isolation):
        pytest.skip(problem)
    with running(isolation, network="none") as control_plane, pytest.MonkeyPatch.context() as environment:
        environment.setenv("MODAL_SERVER_URL", control_plane.url)
        credentials = control_plane.parts.base.credentials
        token = (credentials.token_id, credentials.token_secret)
        with modal.Client(control_plane.url, api_pb2.CLIENT_TYPE_CLIENT, token) as client:
            yield Deployed("network_app", "networks", client)


@pytest.fixture(scope="module", params=[Isolation.ROOT, Isolation.USER], ids=lambda i: i.value)
def apart(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    with without_network(request.param) as app:
        yield app


@pytest.mark.local_only
def test_a_container_reaches_nothing_outside(apart: Deployed) -> None:
    """It has a loopback, which is not this machine's: what listens here is not there, and no other host is."""
    assert apart.call("interfaces") == ["lo"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert apart.call("reaches", *listener.getsockname()) == "ConnectionRefusedError"
    assert apart.call("reaches", "192.0.2.1", 443) == "OSError"


@pytest.mark.local_only
def test_large_values_and_volumes_work_without_a_network(apart: Deployed) -> None:
    """Modal's runtime sends them over HTTP: the control plane listens in the container's network for that."""
    data = os.urandom(1024) * (LARGE // 1024)
    assert apart.call("doubled", data) == data + data
    volume = modal.Volume.from_name("of-the-network", create_if_missing=True, version=2, client=apart.client)
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(data), "/before")
    assert apart.call("copies", volume, "before", "after") == LARGE
    assert b"".join(volume.read_file("after")) == data


@pytest.mark.local_only
def test_a_tunnel_leads_into_a_network_of_its_own(apart: Deployed) -> None:
    """And ends with the container, however it ends."""
    _check_tunnel(apart)


def test_a_tunnel_leads_to_a_port(client: modal.Client) -> None:
    """modal.forward gives an address at which many connections are passed on, in both directions; it ends with it."""
    _check_tunnel(Deployed("network_app", "networks", client))


def _check_tunnel(app: Deployed) -> None:
    with modal.Queue.ephemeral(client=app.client) as queue:
        call = app.function("serves").spawn(queue, b"hello ")
        address: Any = queue.get(timeout=60, partition="address")
        assert answered(address, b"one") == answered(address, b"one") == b"hello one"
        large = b"x" * LARGE
        with socket.create_connection(address, 10) as first, socket.create_connection(address, 10) as second:
            assert exchanged(second, large) == b"hello " + large
            assert exchanged(first, b"two") == b"hello two"
            queue.put(True, partition="over")
            again, encrypted = call.get(timeout=60)
            assert again.startswith("InvalidError: Port ") and "already forwarded" in again
            assert "use modal.forward(port, unencrypted=True)" in encrypted
            wait_until(lambda: not is_open(address), what="the end of the tunnel")
            # What was connected has been ended, too.
            assert first.recv(1) == b""
        call = app.function("serves").spawn(queue, b"hello ")
        address = queue.get(timeout=60, partition="address")
        call.cancel(terminate_containers=True)
        wait_until(lambda: not is_open(address), what="the end of the tunnel")


def answered(address: tuple[str, int], line: bytes) -> bytes:
    with socket.create_connection(address, 10) as connection:
        return exchanged(connection, line)


def exchanged(connection: socket.socket, line: bytes) -> bytes:
    with connection.makefile("rwb") as lines:
        lines.write(line + b"\n")
        lines.flush()
        return lines.readline().rstrip(b"\n")


def is_open(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 5).close()
    except OSError:
        return False
    return True


def test_only_a_container_has_ports_to_forward(client: modal.Client) -> None:
    """A client is refused: there is nothing behind it."""
    with pytest.raises(modal.exception.PermissionDeniedError, match="Only a container"):
        rpc(client, "TunnelStart", api_pb2.TunnelStartRequest(port=80, unencrypted=True))


@pytest.mark.local_only
def test_a_machine_without_namespaces_is_refused() -> None:
    """Containers without isolation would have the network of this machine in spite of the option."""

    async def start() -> None:
        control_plane = ControlPlane(Options(network="none"), isolation=Isolation.PLAIN)
        try:
            await control_plane.start()
        finally:
            await control_plane.close()

    with pytest.raises(NetworkError, match=r"--network none needs namespaces.*or choose --network host"):
        asyncio.run(start())
