"""``make bench-relay-heartbeats``: heartbeats of 500 tasks at once over one relay, on both transports.

A task here is a client of its container's loopback server; the containers, the relay and the API server's stand-in are
processes of their own. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import secrets
import time
from contextlib import ExitStack

import modal

from benchmarks import machine
from benchmarks.relay import KEY_VARIABLE, pair, program, stage
from benchmarks.relay_app import NAMES


class Memory(machine.Sampling):
    """The memory of a process over time, in MB."""

    def __init__(self, pid: int) -> None:
        super().__init__(2.0)
        self._pid = pid
        self.samples: list[float] = []

    def sample(self) -> None:
        self.samples.append(machine.memory(self._pid))


def row(way: str, given: argparse.Namespace) -> str:
    """Send heartbeats on one transport, and return its row."""
    with stage(given.latency) as local, ExitStack() as stack:
        _, url = stack.enter_context(program("--part", "serve"))
        relay, _ = stack.enter_context(program("--part", "relay", "--url", url))
        call, public = modal.Function.from_name(NAMES.app, "beats"), pair().public.raw.hex()
        each = given.tasks // given.containers
        with Memory(relay.pid) as memory:
            cpu, began = machine.cpu_seconds([relay.pid]), time.monotonic()
            calls = [call.spawn(way, public, each, given.every, given.seconds) for _ in range(given.containers)]
            waits = sorted(wait for found in calls for wait in found.get())
            cpu, seconds = machine.cpu_seconds([relay.pid]) - cpu, time.monotonic() - began
        del local
    late = sum(wait > given.every for wait in waits)
    p50, p99 = (1000 * waits[int(share * (len(waits) - 1))] for share in (0.5, 0.99))
    quarter = max(len(memory.samples) // 4, 1)
    early, last = max(memory.samples[quarter : 2 * quarter]), max(memory.samples[-quarter:])
    return (
        f"| {way} | {len(waits)} | {late} | {p50:.0f} | {p99:.0f} | {1000 * waits[-1]:.0f} | {early:.0f} | {last:.0f} "
        f"| {1000 * cpu / len(waits):.2f} | {100 * cpu / seconds:.0f} % |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--containers", type=int, default=20, help="containers of these tasks")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two heartbeats of a task")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--latency", default="60ms", help="the delay of each RPC; empty for none")
    parser.add_argument("--ways", default="queues,tunnel", help="the transports, separated by commas")
    given = parser.parse_args()
    os.environ[KEY_VARIABLE] = secrets.token_hex(32)
    print(f"{machine.describe()}; load before {machine.load():.1f}; {given}\n")
    print(
        "| transport | heartbeats | late | p50 (ms) | p99 (ms) | longest (ms) | MB after 1/4 | MB at the end | ms of ",
        end="",
    )
    print("processor each | a core |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for way in given.ways.split(","):
        print(row(way, given), flush=True)


if __name__ == "__main__":
    main()
