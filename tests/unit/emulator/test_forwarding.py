"""Connections that are passed on between two places."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from modalflow.emulator.network.forwarding import Connection, Delay, Forwarding

ONE_WAY = 0.05


@contextlib.asynccontextmanager
async def forwarded(delay: Delay | None = None) -> AsyncIterator[tuple[Forwarding, list[str]]]:
    """A forwarding to a server that sends everything back, and says once it has read to the end."""
    events: list[str] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
            events.append("end")
            writer.write(b"!")

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    there = server.sockets[0].getsockname()

    async def connect() -> Connection:
        return await asyncio.open_connection(*there)

    forwarding = await Forwarding.start(socket.create_server(("127.0.0.1", 0)), connect, delay)
    try:
        yield forwarding, events
    finally:
        forwarding.close()
        server.close()


@pytest.mark.parametrize("delay", [None, lambda: 0.001], ids=["at once", "delayed"])
async def test_everything_arrives_and_each_direction_ends_alone(delay: Delay | None) -> None:
    """Data of any size, in order; who has sent everything still gets the answer."""
    async with forwarded(delay) as (forwarding, events):
        reader, writer = await asyncio.open_connection(*forwarding.address)
        data = bytes(range(256)) * 20_000
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data + b"!"
        assert events == ["end"]
        writer.close()


async def test_a_delay_holds_up_each_piece_and_no_other() -> None:
    """A round trip takes twice the time of one way; ten pieces that follow each other take hardly longer than one."""
    async with forwarded(lambda: ONE_WAY) as (forwarding, _):
        reader, writer = await asyncio.open_connection(*forwarding.address)
        writer.write(b"1")
        await reader.readexactly(1)
        begun = time.monotonic()
        for _ in range(10):
            writer.write(b"2")
            await writer.drain()
            await asyncio.sleep(0.001)
        await reader.readexactly(10)
        assert 2 * ONE_WAY <= time.monotonic() - begun < 10 * ONE_WAY
        writer.close()


async def test_its_end_ends_all_connections() -> None:
    """Also those that are idle, and those that never get through."""

    async def refused() -> Connection:
        raise ConnectionRefusedError

    async with forwarded() as (forwarding, _):
        address = forwarding.address
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"1")
        await reader.readexactly(1)
        forwarding.close()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)
    nowhere = await Forwarding.start(socket.create_server(("127.0.0.1", 0)), refused)
    reader, writer = await asyncio.open_connection(*nowhere.address)
    assert await reader.read() == b""
    writer.close()
    nowhere.close()
