"""``make bench-relay``: requests to the Execution API over relays, on both transports, beside direct ones.

The API server is a stand-in that answers at once, or after a given time, so the figures are those of the way. The
control plane, the API server, each relay and the container are processes of their own. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import modal
from aiohttp import web

from benchmarks import machine
from benchmarks.relay_app import KEY_ID, NAMES
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from modalflow.relay.encryption import KeyPair
from modalflow.relay.host.api_server import ApiServer
from modalflow.relay.host.counts import Counts
from modalflow.relay.host.relay import Relay
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.keys import KeyRing
from modalflow.relay.queue_transport import QueueToContainers

#: Sessions of the container, clients in each, and seconds, for a rate.
SESSIONS, EACH, SECONDS = 8, 16, 8.0
KEY_VARIABLE = "BENCH_RELAYKEY_VARIABLE"


async def serve(seconds: float) -> None:
    """Be the API server until killed, with answers after this time; print its URL."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if seconds:
            await asyncio.sleep(seconds)
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
    own = pair()

    async def fetch() -> KeyRing:
        return KeyRing({own.id: own})

    name = f"r{os.getpid()}"
    transport = TunnelsToContainers(name, QueueToContainers(NAMES), local=True)
    async with ApiServer(url) as api:
        print("ready", flush=True)
        await Relay(name, transport, api, fetch, Counts(), transport).run()


def pair() -> KeyPair:
    return KeyPair(KEY_ID, bytes.fromhex(os.environ[KEY_VARIABLE]))


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


@contextmanager
def stage(latency: str) -> Iterator[LocalModal]:
    """Yield a control plane with the app; each RPC takes the latency, for containers and for relays."""
    faults = (f"*:delay={latency},for=containers",) if latency else ()
    with LocalModal(Options(latency=latency or None, faults=faults)) as local:
        os.environ.update(local.env)
        sys.modules.pop("benchmarks.relay_app", None)
        module = importlib.import_module("benchmarks.relay_app")
        module.app.deploy(name=NAMES.app)
        modal.Queue.from_name(NAMES.relay, create_if_missing=True).hydrate()
        yield local


class Watch(machine.Sampling):
    """The processor time of processes while requests are sent at the highest rate: the last seconds of a run."""

    def __init__(self, pids: Sequence[Sequence[int]]) -> None:
        super().__init__(0.1)
        self._pids = pids
        self._samples: list[tuple[float, list[float], float]] = []

    def sample(self) -> None:
        of_each = [machine.cpu_seconds(list(pids)) for pids in self._pids]
        self._samples.append((time.time(), of_each, machine.cpu_seconds_of_all()))

    def between(self, began: float, seconds: float) -> tuple[list[float], float]:
        """Return the processor time of each group of processes within a time, and of the whole machine."""
        first, last = (min(self._samples, key=lambda each: abs(each[0] - at)) for at in (began, began + seconds))
        return [after - before for before, after in zip(first[1], last[1], strict=True)], last[2] - first[2]


def row(way: str, latency: str, relays: int, api: float) -> str:
    """Measure one way, and return its row."""
    with stage(latency) as local, contextlib.ExitStack() as stack:
        server, url = stack.enter_context(program("--part", "serve", "--api", str(api)))
        running = [stack.enter_context(program("--part", "relay", "--url", url))[0].pid for _ in range(relays)]
        call = modal.Function.from_name(NAMES.app, "measure")
        public = pair().public.raw.hex()
        with Watch([running, [local.address.pid], [server.pid]]) as watch:
            found = call.remote(url, way, public, SESSIONS, EACH, SECONDS)
        (of_relays, of_control_plane, of_server), of_machine = watch.between(found["began"], found["seconds"])
    ordered = sorted(found["milliseconds"])
    p50, p95 = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    costs = [of_relays, of_control_plane, found["cpu"], of_server]
    each = " | ".join(f"{1000 * cost / found['requests']:.2f}" for cost in costs)
    busy = 100 * of_machine / found["seconds"] / (os.cpu_count() or 1)
    name = way if way == "direct" else f"{way}, {relays} relay{'s' if relays > 1 else ''}"
    rate = found["requests"] / found["seconds"]
    return f"| {name} | {latency or '0 ms'} | {p50:.1f} | {p95:.1f} | {rate:.0f} | {each} | {busy:.0f} % |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["serve", "relay"], help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    parser.add_argument("--latency", default="60ms", help="the delay of each RPC in the second half of the table")
    parser.add_argument("--api", type=float, default=0.0, help="seconds until the API server answers")
    parser.add_argument("--ways", default="direct,queues,tunnel", help="the ways, separated by commas")
    given = parser.parse_args()
    if given.part == "serve":
        asyncio.run(serve(given.api))
    elif given.part == "relay":
        asyncio.run(relay(given.url))
    else:
        os.environ[KEY_VARIABLE] = secrets.token_hex(32)
        print(f"{machine.describe()}; load before {machine.load():.1f}; API server {given.api:g} s\n")
        print(
            "| way | RPCs take | p50 (ms) | p95 (ms) | requests/s | relays | control plane | container | API | busy |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        ways = given.ways.split(",")
        if "direct" in ways:
            print(row("direct", "", 0, given.api), flush=True)
        for latency in ("", given.latency):
            for way in ways:
                for relays in (1, 3) if way != "direct" else ():
                    print(row(way, latency, relays, given.api), flush=True)


if __name__ == "__main__":
    main()
