"""A whole relay in one event loop: a stand-in for the API server, relays, a container's loopback server, a client."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from modalflow.relay.container.loopback_server import LoopbackServer
from modalflow.relay.container.relay_client import RelayClient
from modalflow.relay.container.tunnel_to_relays import TunnelToRelays
from modalflow.relay.encryption import KeyPair, Session
from modalflow.relay.host.api_server import ApiServer
from modalflow.relay.host.counts import Counts
from modalflow.relay.host.memory_limit import MemoryLimit
from modalflow.relay.host.relay import Relay
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.keys import KeyRing
from modalflow.relay.messages import Answer, Request
from modalflow.relay.tunnel import Address
from tests.unit.relay.memory_transport import MemoryTransport

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def key_pair(key_id: str = "20260101T000000_aa") -> KeyPair:
    return KeyPair(key_id, secrets.token_bytes(32))


async def carry_out(api: ApiServer, request: Request) -> Answer:
    """Return the answer to a request, with all of a relay's memory."""
    with MemoryLimit().share("session") as share:
        return await api.carry_out(request, share)


@dataclass
class Api:
    """What the API server was asked, and how it answers."""

    url: str = ""
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    handler: Handler | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path, await request.read()))
        self.headers.append(dict(request.headers))
        if self.handler is not None:
            return await self.handler(request)
        headers = {"Refreshed-API-Token": "next", "airflow-api-version": "2026-01-01", "set-cookie": "a=b"}
        return web.json_response({"method": request.method}, headers=headers)


@asynccontextmanager
async def api_server() -> AsyncIterator[tuple[Api, web.AppRunner]]:
    api = Api()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = "http://{}:{}/base/execution/".format(*runner.addresses[0][:2])
    try:
        yield api, runner
    finally:
        await runner.cleanup()


@dataclass
class Conversation:
    """All of it."""

    api: Api
    memory: MemoryTransport
    stack: AsyncExitStack
    http: aiohttp.ClientSession
    runner: web.AppRunner
    """The API server's, for another port."""
    transport: str = "queues"
    """``queues``: the transport in memory alone. ``tunnel``: that one, and tunnels above it."""
    pair: KeyPair = field(default_factory=key_pair)
    notes: list[str] = field(default_factory=list)
    relays: list[Relay] = field(default_factory=list)
    tunnels: list[TunnelToRelays] = field(default_factory=list)
    """The containers' side of each."""

    async def add_relay(self, name: str = "", **keys: KeyPair) -> asyncio.Task[None]:
        """Start a relay; cancel the task to kill it."""
        pairs = {pair.id: pair for pair in keys.values()} or {self.pair.id: self.pair}

        async def fetch() -> KeyRing:
            return KeyRing(pairs)

        api = await self.stack.enter_async_context(ApiServer(self.api.url))
        name, memory = name or f"relay-{len(self.relays)}", self.memory.to_containers()
        tunnels = TunnelsToContainers(name, memory, local=True) if self.transport == "tunnel" else None
        relay = Relay(name, tunnels or memory, api, fetch, Counts(), tunnels)
        self.relays.append(relay)
        task = asyncio.create_task(relay.run())
        self.stack.push_async_callback(_end, task)
        return task

    async def add_container(
        self, name: str = "ta-1", pair: KeyPair | None = None, *, connected: bool = True
    ) -> LoopbackServer:
        """Start a container's loopback server. If there is a relay with its key, it has its tunnel at the return."""
        session = Session((pair or self.pair).public)
        memory = self.memory.to_relays()
        tunnel = TunnelToRelays(memory, session, _forward) if self.transport == "tunnel" else None
        client = RelayClient(tunnel or memory, session, name, self.notes.append)
        self.stack.push_async_callback(client.close)
        if tunnel is not None:
            self.tunnels.append(tunnel)
            self.stack.push_async_callback(_end, asyncio.create_task(tunnel.run(client.ask)))
            if self.relays and pair is None and connected:
                tunnel.want()
                await until(lambda: tunnel.connected)
        return await self.stack.enter_async_context(LoopbackServer(client))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _forward(port: int) -> AsyncIterator[Address]:
    """Stand in for Modal's tunnel."""
    yield Address("127.0.0.1", port, tls=False)


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; TimeoutError after a long time."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def conversation(transport: str = "queues") -> AsyncIterator[Conversation]:
    async with AsyncExitStack() as stack:
        api, runner = await stack.enter_async_context(api_server())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Conversation(api, MemoryTransport(), stack, http, runner, transport)


def detail(body: bytes | str) -> str:
    return str(json.loads(body)["detail"])
