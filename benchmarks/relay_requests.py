"""The container's side of the relay's benchmark: heartbeats, one after the other, and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from benchmarks.relay_app import KEY_ID, NAMES
from modalflow.relay.container.loopback_server import LoopbackServer
from modalflow.relay.container.relay_client import RelayClient
from modalflow.relay.container.tunnel_to_relays import TunnelToRelays
from modalflow.relay.encryption import PublicKey, Session
from modalflow.relay.queue_transport import QueueToRelays

#: Sequential requests for a latency, and before it.
ONE_BY_ONE, BEFORE = 150, 20


class Requests:
    """Requests on one way."""

    def __init__(self, url: str, way: str, public: str, sessions: int) -> None:
        self._url, self._way, self._public, self._sessions = url, way, public, sessions

    async def measure(self, each: int, seconds: float) -> dict[str, Any]:
        """Return the milliseconds of sequential requests, and the rate of many at once with its processor time."""
        async with contextlib.AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(self._open()) for _ in range(self._sessions)]
            http = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=self._sessions * each))
            )
            milliseconds = []
            for number in range(ONE_BY_ONE + BEFORE):
                began = time.perf_counter()
                await beat(http, urls[0])
                if number >= BEFORE:
                    milliseconds.append(1000 * (time.perf_counter() - began))
            cpu, began = time.process_time(), time.time()
            done = await _many(http, urls, each, seconds)
            return {
                "milliseconds": milliseconds,
                "requests": done,
                "began": began,
                "seconds": time.time() - began,
                "cpu": time.process_time() - cpu,
            }

    async def beats(self, tasks: int, every: float, seconds: float) -> list[float]:
        """Return the seconds from the time of each heartbeat to its answer."""
        waits: list[float] = []
        async with self._open() as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            until = time.monotonic() + seconds

            async def task(number: int) -> None:
                due = time.monotonic() + every * number / tasks
                while due < until:
                    await asyncio.sleep(due - time.monotonic())
                    await beat(http, url)
                    waits.append(time.monotonic() - due)
                    due += every

            await asyncio.gather(*(task(number) for number in range(tasks)))
        return waits

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[str]:
        """Yield a URL for the requests of one session."""
        if self._way == "direct":
            yield self._url
            return
        session, queue = Session(PublicKey(KEY_ID, bytes.fromhex(self._public))), QueueToRelays(NAMES)
        tunnel = TunnelToRelays(queue, session) if self._way == "tunnel" else None
        client = RelayClient(tunnel or queue, session, "ta-1", print)
        async with LoopbackServer(client) as server:
            if tunnel is None:
                yield server.url
            else:
                tunnel.want()
                running = asyncio.create_task(tunnel.run(client.ask))
                async with asyncio.timeout(30):
                    while not tunnel.connected:
                        await asyncio.sleep(0.01)
                yield server.url
                running.cancel()
        await client.close()


async def beat(http: aiohttp.ClientSession, url: str) -> None:
    """Send a heartbeat."""
    body = json.dumps({"hostname": "ta-1", "pid": 1, "n": secrets.token_hex(8)})
    async with http.put(f"{url}task-instances/0198-0000/heartbeat", data=body) as response:
        assert response.status == 204, await response.text()


async def _many(http: aiohttp.ClientSession, urls: Sequence[str], each: int, seconds: float) -> int:
    done, until = 0, time.perf_counter() + seconds

    async def ask(url: str) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await beat(http, url)
            done += 1

    await asyncio.gather(*(ask(url) for url in urls for _ in range(each)))
    return done
