"""Tasks whose requests to the Execution API travel over Modal: real containers and relays, a stub of Airflow."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modalflow.names import API_URL_VARIABLE, Names
from modalflow.relay import keys
from tests.command_line import CommandLine
from tests.integration.world import World, deployed_worker

NAMES = Names("relayed")

#: Where no API server is: a task that gets there by another way than the relay fails.
NOWHERE = "http://127.0.0.1:9/execution/"


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, NAMES.app) as world:
        yield world


@contextmanager
def relay(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """A relay, as a service runs it."""
    variables = {**os.environ, **world.variables, API_URL_VARIABLE: world.api.url, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", "modalflow.cli", "relay", "--app", NAMES.app], env=variables)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[subprocess.Popen[bytes]]:
    with relay(world) as process:
        yield process


def public_key(world: World) -> str:
    return str(asyncio.run(keys.fetch_public_key(NAMES, client=world.client)))


def test_a_task_runs_over_the_relay(world: World, running: subprocess.Popen[bytes]) -> None:
    """Every request of a task passes, and its state arrives."""
    work = world.task("hello", relay=public_key(world), env={API_URL_VARIABLE: NOWHERE})
    entry = work.ended()
    assert entry.final_state == "success", work.log()
    assert world.api.states() == ["success"]
