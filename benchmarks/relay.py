"""``make bench-relay``: requests to the Execution API over a relay, beside direct ones.

The API server is a stand-in that answers at once, so the figures are those of the way. The control plane, the API
server, each relay and the container's side are processes of their own. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import aiohttp
import modal
from aiohttp import web

from benchmarks import machine
from modalflow.emulator.local import LocalModal
from modalflow.names import Names
from modalflow.relay.container.loopback_server import LoopbackServer
from modalflow.relay.container.relay_client import RelayClient
from modalflow.relay.encryption import KeyPair, Session
from modalflow.relay.host.api_server import ApiServer
from modalflow.relay.host.counts import Counts
from modalflow.relay.host.relay import Relay
from modalflow.relay.keys import KeyRing
from modalflow.relay.queue_transport import QueueToContainers, QueueToRelays

NAMES = Names("bench")
#: Sequential requests for a latency, and seconds and concurrency for a rate.
ONE_BY_ONE, SECONDS = 150, 8.0
CONTAINERS, EACH = 8, 16
_KEY = "BENCH_RELAY_KEY"


async def serve() -> None:
    """Be the API server until killed; print its URL."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/execution/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("http://{}:{}/execution/".format(*runner.addresses[0][:2]), flush=True)
    await asyncio.Event().wait()


async def relay(url: str) -> None:
    """Be a relay until killed."""
    pair = _pair()

    async def fetch() -> KeyRing:
        return KeyRing({pair.id: pair})

    async with ApiServer(url) as api:
        print("ready", flush=True)
        await Relay(f"r{os.getpid()}", QueueToContainers(NAMES), api, fetch, Counts()).run()


def _pair() -> KeyPair:
    return KeyPair("20260101T000000_bench", bytes.fromhex(os.environ[_KEY]))


@dataclass
class Figures:
    """What one container's side has measured."""

    milliseconds: list[float] = field(default_factory=list)
    rate: float = 0.0


async def measure(url: str) -> Figures:
    """Return the figures of requests to this URL, or, without one, over a relay."""
    found = Figures()
    async with contextlib.AsyncExitStack() as stack:
        urls = [url] * CONTAINERS if url else [await stack.enter_async_context(_container()) for _ in range(CONTAINERS)]
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONTAINERS * EACH))
        )
        for number in range(ONE_BY_ONE + 20):
            began = time.perf_counter()
            await _beat(http, urls[0])
            if number >= 20:
                found.milliseconds.append(1000 * (time.perf_counter() - began))
        found.rate = await _rate(http, urls)
    return found


async def _rate(http: aiohttp.ClientSession, urls: Sequence[str]) -> float:
    done, until = 0, time.perf_counter() + SECONDS

    async def ask(url: str) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await _beat(http, url)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(ask(url) for url in urls for _ in range(EACH)))
    return done / (time.perf_counter() - began)


async def _beat(http: aiohttp.ClientSession, url: str) -> None:
    body = json.dumps({"hostname": "ta-1", "pid": 1, "n": secrets.token_hex(8)})
    async with http.put(f"{url}task-instances/0198-0000/heartbeat", data=body) as response:
        assert response.status == 204, await response.text()


@asynccontextmanager
async def _container() -> AsyncIterator[str]:
    client = RelayClient(
        QueueToRelays(NAMES), Session(_pair().public), "ta-1", lambda text: print(text, file=sys.stderr)
    )
    async with LoopbackServer(client) as server:
        yield server.url
    await client.close()


@contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a part of this benchmark in a process; yield it and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.relay", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def row(kind: str, latency: str, relays: int) -> str:
    """Measure one kind, and return its row."""
    options = {"faults": [f"Queue*:delay={latency}"]} if latency else {}
    with LocalModal(**options) as local, contextlib.ExitStack() as stack:  # type: ignore[arg-type]
        os.environ.update(local.env)
        _, url = stack.enter_context(program("--part", "serve"))
        modal.Queue.from_name(NAMES.relay, create_if_missing=True).hydrate()
        running = [stack.enter_context(program("--part", "relay", "--url", url))[0] for _ in range(relays)]
        before = machine.cpu_seconds([process.pid for process in running])
        asked = ["--part", "measure", *([] if relays else ["--url", url])]
        _, line = stack.enter_context(program(*asked))
        figures = Figures(**json.loads(line))
        cpu = machine.cpu_seconds([process.pid for process in running]) - before
    ordered = sorted(figures.milliseconds)
    p50, p95 = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    requests = ONE_BY_ONE + figures.rate * SECONDS
    share = f"{1000 * cpu / requests:.1f}" if relays else "-"
    return f"| {kind} | {latency or '0 ms'} | {p50:.1f} | {p95:.1f} | {figures.rate:.0f} | {share} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["serve", "relay", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    parser.add_argument("--latency", default="60ms", help="the delay of each RPC in the second half of the table")
    given = parser.parse_args()
    if given.part == "serve":
        asyncio.run(serve())
    elif given.part == "relay":
        asyncio.run(relay(given.url))
    elif given.part == "measure":
        found = asyncio.run(measure(given.url))
        print(json.dumps({"milliseconds": found.milliseconds, "rate": found.rate}), flush=True)
    else:
        os.environ[_KEY] = secrets.token_hex(32)
        print(f"{machine.describe()}; load before {machine.load():.1f}\n")
        print("| way | RPCs take | p50 (ms) | p95 (ms) | requests a second | relay: ms of processor a request |")
        print("|---|---|---:|---:|---:|---:|")
        print(row("direct", "", 0))
        for latency in ("", given.latency):
            for relays in (1, 3):
                print(row(f"{relays} relay{'s' if relays > 1 else ''}", latency, relays), flush=True)


if __name__ == "__main__":
    main()
