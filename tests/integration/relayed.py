"""Relays beside a deployed worker, for tests whose containers have no network."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from modalflow.names import API_URL_VARIABLE, Names
from modalflow.relay import keys
from tests.integration.world import World

#: Where a task would get without the relay: the containers' own loopback, with nothing on it.
NOWHERE = "http://127.0.0.1:9/execution/"
#: A relay that makes connections if containers ask for them. All others send their requests over the Modal Queue.
TUNNELS = {"AIRFLOW__MODAL_EXECUTOR__RELAY_TRANSPORT": "tunnel"}


@contextmanager
def relay(world: World, names: Names) -> Iterator[subprocess.Popen[bytes]]:
    """A relay, as a service runs it."""
    variables = {**os.environ, **world.variables, API_URL_VARIABLE: world.api.url, **TUNNELS, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", "modalflow.cli", "relay", "--app", names.app], env=variables)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def public_key(world: World, names: Names) -> str:
    """The newest relay key, as submissions have it."""
    return str(asyncio.run(keys.fetch_public_key(names, client=world.client)))
