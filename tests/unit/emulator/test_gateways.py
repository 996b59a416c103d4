"""The control plane's side of a container's gateway, and what a container can do with its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modalflow.emulator.network.gateways import Gateway, machine_ports
from modalflow.emulator.processes.sandboxes.inside import SOCKET


@contextlib.asynccontextmanager
async def a_gateway(folder: Path, *ports: int) -> AsyncIterator[None]:
    """A gateway of a container that reaches these ports alone."""
    gateway = Gateway(folder, lambda: ports, reaches_all=False)
    await gateway.start()
    try:
        yield
    finally:
        gateway.close()


async def asked(folder: Path, *request: object) -> bytes:
    """The beginning of the answer to a request, empty if it is refused."""
    reader, writer = await asyncio.open_unix_connection(str(folder / SOCKET))
    with contextlib.closing(writer):
        writer.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(10):
            return await reader.read(1)


@pytest.mark.parametrize(("host", "answer"), [("127.0.0.1", b"+"), ("127.0.0.2", b"")])
async def test_another_address_with_the_same_port_is_out_of_reach(tmp_path: Path, host: str, answer: bytes) -> None:
    """Another program may listen there."""
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        async with a_gateway(tmp_path, port):
            assert await asked(tmp_path, "connect", host, port) == answer


@pytest.mark.parametrize("line", [b"{", b"[" * 50_000, b"x" * 200_000, b'["connect", "127.0.0.1", 70000]'], ids=len)
async def test_what_is_no_request_ends_the_connection(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of the control plane has nothing of it."""
    async with a_gateway(tmp_path, 70000):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            writer.write(line + b"\n")
            async with asyncio.timeout(10):
                assert await reader.read() == b""
    assert not caplog.records


async def test_what_a_control_connection_sends_is_not_kept(tmp_path: Path) -> None:
    """A container that sends without end does not fill the memory of the control plane."""
    tracemalloc.start()
    try:
        async with a_gateway(tmp_path, 1):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
            with contextlib.closing(writer):
                writer.write(b'["control", ""]\n')
                assert json.loads(await reader.readline()) == {"ports": [1]}
                for _ in range(64):
                    writer.write(bytes(1 << 20))
                    await writer.drain()
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::1", "127.0.0.2"])
def test_ports_of_the_machine(address: str) -> None:
    """A container finds at 127.0.0.1 what this machine finds there."""
    is_new = ":" in address
    if is_new and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    family = socket.AF_INET6 if is_new else socket.AF_INET
    with socket.socket(family) as listener:
        if is_new:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, 0))
        listener.listen()
        assert (listener.getsockname()[1] in machine_ports()) == (address not in ("::1", "127.0.0.2"))
