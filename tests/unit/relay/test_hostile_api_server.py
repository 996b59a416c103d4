"""The relay beside an API server that answers with nonsense, too much, or not at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modalflow.relay.host import api_server
from modalflow.relay.host.api_server import ApiServer, UnreachableError
from modalflow.relay.messages import LARGEST, Answer, Request
from tests.unit.relay.conversation import carry_out, detail

HEALTH = Request("GET", "health")


@asynccontextmanager
async def answering(head: bytes, size: int = 0) -> AsyncIterator[ApiServer]:
    """The relay's side of a server with one answer for all: these bytes, and a body of this size."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"x" * size)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with ApiServer(f"http://127.0.0.1:{port}/execution/") as api:
            yield api


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0\xff no HTTP\r\n\r\n",
        b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nabcdefgh",
    ],
)
async def test_nonsense_becomes_an_error_that_a_container_can_read(head: bytes) -> None:
    """Whatever comes back, the container gets an answer: otherwise it would ask until its time is over."""
    async with answering(head) as api:
        answer = Answer.read((await carry_out(api, HEALTH)).to_bytes())
        assert answer.status == 502 and "API server" in detail(answer.body)


async def test_an_answer_beyond_the_limit_is_refused_once() -> None:
    """The error names the limit and the way out, and is none that clients repeat."""
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", LARGEST + 1) as api:
        answer = await carry_out(api, HEALTH)
        assert answer.status == 413 and "40 MiB" in detail(answer.body) and "xcom_backend" in detail(answer.body)
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", LARGEST) as api:
        assert len((await carry_out(api, HEALTH)).body) == LARGEST


async def test_a_server_without_a_sign_of_life_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is off, or behind a firewall: the relay leaves requests to other relays, and fails none."""
    monkeypatch.setattr(api_server, "CONNECT_TIMEOUT", 0.5)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with ApiServer(f"http://127.0.0.1:{full.getsockname()[1]}/execution/") as api:
            with pytest.raises(UnreachableError, match="cannot be reached"):
                await carry_out(api, HEALTH)
