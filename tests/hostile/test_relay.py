"""Hostile containers and the relay: other paths, other hosts, other tokens, and answers for the relay."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from modalflow.emulator.options import Options
from modalflow.names import API_URL_VARIABLE, Names
from tests.command_line import CommandLine
from tests.hostile import thief, trespasser
from tests.integration.relayed import NOWHERE, public_key, relay
from tests.integration.world import Work, World, deployed_worker

NAMES = Names("robbed")
PIN, TOKEN = "value-of-the-pin", "token-of-the-victim"
JWT_SECRET = "a-secret-of-the-api-server-that-no-container-has-0123456789abcdef"

#: Reads four Variables, one after the other.
VICTIM = f"""
import os, urllib.request
url = os.environ["{API_URL_VARIABLE}"] + "variables/pin-"
for number in range(4):
    request = urllib.request.Request(url + str(number), headers={{"Authorization": "Bearer {TOKEN}"}})
    with urllib.request.urlopen(request, timeout=90) as answer:
        print("pin", answer.read().decode(), flush=True)
"""


@dataclass(frozen=True)
class Robbery:
    """What came of it."""

    victim: list[str]
    """Lines that the victim has printed."""
    thief: dict[str, Any]
    api: list[str]
    """Paths that the API server was asked for."""
    bomb: Path
    """The file that a careless reader of the thief's items would have made."""


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    """A container for each task."""
    options = Options(network="none")
    with deployed_worker(modalflow_cli, NAMES.app, "--concurrency", "1", modal_options=options) as world:
        world.api.variables |= {f"pin-{number}": PIN for number in range(4)}
        yield world


@pytest.fixture(scope="module")
def robbery(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robbery]:
    """The thief gets the victim's first request because no relay runs yet; a relay comes when it has sent all it can.
    The relay stays."""
    key, bomb = public_key(world, NAMES), tmp_path_factory.mktemp("bomb") / "exploded"
    secrets = (PIN, TOKEN, "variables", "forged")
    arguments = (thief.__file__, NAMES.relay, key, str(bomb), *secrets)
    robber = command(world, key, *arguments)
    robber.running()
    robbed = command(world, key, "-c", VICTIM)
    robber.log_with("stolen")
    with ExitStack() as running:
        running.enter_context(relay(world, NAMES))
        victim, stolen = lines_of(robbed), lines_of(robber)
        # A relay checks the API server at its start.
        api = [path for _, path, _ in world.api.requests if path != "/execution/health"]
        yield Robbery(victim, json.loads(stolen[-1]), api, bomb)


def command(world: World, key: str, *arguments: str) -> Work:
    return world.command((sys.executable, *arguments), relay=key, env={API_URL_VARIABLE: NOWHERE})


def lines_of(work: Work) -> list[str]:
    """What a program that has succeeded has printed."""
    assert work.ended().return_code == 0, work.log()
    return [str(json.loads(line)["event"]) for line in work.log().splitlines()[1:-1]]


def test_no_container_answers_for_a_relay(robbery: Robbery) -> None:
    """Forged answers, whatever their key, and copies of requests are dropped: each answer is the API server's."""
    pins = [line for line in robbery.victim if line.startswith("pin ")]
    assert pins == [f"pin {json.dumps({'key': f'pin-{number}', 'value': PIN})}" for number in range(4)]


def test_a_stolen_request_is_carried_out_once(robbery: Robbery) -> None:
    """However often a thief sends it: the relay recognises it, and the loss of an answer costs time alone."""
    assert robbery.api == [f"/execution/variables/pin-{number}" for number in range(4)]


def test_another_container_s_messages_are_unreadable(robbery: Robbery) -> None:
    """Neither a request nor an answer shows token, path or content, and no key of the thief opens one."""
    assert robbery.thief == {"directions": ["request", "answer"], "opened": [], "readable": []}


def test_no_item_runs_code_on_the_airflow_host(robbery: Robbery) -> None:
    """Nor in the victim: an item that would is refused."""
    assert not robbery.bomb.exists()


@pytest.mark.usefixtures("robbery")
def test_a_container_has_the_rights_of_its_token(world: World) -> None:
    """Other paths, other servers and forged tokens: refused by the relay, or by the API server; nothing passes by."""
    api = urlsplit(world.api.url)
    state = "PATCH /execution/task-instances/of-another/state"
    claims = {"sub": "of-another", "aud": "urn:airflow.apache.org:task", "nbf": 0, "exp": time.time() + 600}
    of_another_key = jwt.encode(claims, JWT_SECRET[::-1], "HS512")
    unsigned = jwt.encode(claims, None, "none")  # type: ignore[arg-type]
    attempts: list[tuple[str, list[str], str, str]] = [
        ("GET /execution/health", [], "", "200"),
        ("GET /execution/api/v2/dags", [], "", "403"),
        ("GET /execution/../api/v2/dags", [], "", "403"),
        ("GET /execution/variables/%2e%2e/%2e%2e/api/v2/dags", [], "", "403"),
        ("GET /api/v2/dags", [], "", "404"),
        (f"GET {world.api.url}health", [], "", "404"),
        ("GET http://airflow.example/api/v2/dags", [], "", "404"),
        ("GET /execution/@airflow.example/", [], "", "403"),
        ("DELETE /execution/connections/tested", [], "", "403"),
        (state, [], '{"state": "success"}', "401"),
        (state, [f"Authorization: Bearer {of_another_key}"], '{"state": "success"}', "403"),
        (state, [f"Authorization: Bearer {unsigned}"], '{"state": "success"}', "403"),
    ]
    hosts = [(api.hostname, api.port), ("127.0.0.2", api.port), ("192.0.2.1", 80), ("8.8.8.8", 53)]
    world.api.requests.clear()
    world.api.jwt_secret = JWT_SECRET
    try:
        requests = [(line, headers, body) for line, headers, body, _ in attempts]
        work = command(world, public_key(world, NAMES), trespasser.__file__, json.dumps(requests), json.dumps(hosts))
        found = json.loads(lines_of(work)[-1])
    finally:
        world.api.jwt_secret = ""
    statuses = {line: status for (line, *_), status in zip(attempts, found["statuses"], strict=True)}
    assert found["statuses"] == [expected for *_, expected in attempts], statuses
    assert found["hosts"] == [False] * 4
    paths = [path for _, path, _ in world.api.requests]
    assert set(paths) <= {"/execution/health", "/execution/task-instances/of-another/state"}, paths
