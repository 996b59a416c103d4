"""Tasks whose requests to the Execution API travel over Modal: real containers and relays, a stub of Airflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from modalflow import control_plane
from modalflow.demo.programs.ports import free_port
from modalflow.emulator.options import Options
from modalflow.executor import relays
from modalflow.names import API_URL_VARIABLE, Names
from tests.command_line import CommandLine
from tests.driving import Driver
from tests.integration.relayed import NOWHERE, TUNNELS, public_key, relay
from tests.integration.world import COLD, World, deployed_worker
from tests.support import descendants, wait_until

NAMES = Names("relayed")

both_transports = pytest.mark.parametrize("transport", ["queues", "tunnel"])


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # No container reaches anything but the control plane, which a test starts again in its place.
    options = Options(network="none", state_dir=tmp_path_factory.mktemp("modal"), port=free_port())
    with deployed_worker(modalflow_cli, NAMES.app, modal_options=options) as world:
        yield world


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[subprocess.Popen[bytes]]:
    with relay(world, NAMES) as process:
        yield process


@both_transports
def test_a_task_runs_over_the_relay(world: World, running: subprocess.Popen[bytes], transport: str) -> None:
    """Every request of a task passes, and its state arrives."""
    world.api.requests.clear()
    work = world.task(
        "hello", relay=public_key(world, NAMES), relay_transport=transport, env={API_URL_VARIABLE: NOWHERE}
    )
    entry = work.ended()
    assert entry.final_state == "success", work.log()
    assert world.api.states() == ["success"]


#: Sends what a hostile or a large task may send, without a library; prints the answers.
ASK = """
import json, os, sys, urllib.error, urllib.request
base = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
for method, target, size in json.loads(sys.argv[1]):
    body = json.dumps("x" * size).encode() if size else None
    request = urllib.request.Request(base + target, body, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(method, target, answer.status)
    except urllib.error.HTTPError as error:
        print(method, target, error.code, json.loads(error.read())["detail"])
"""


def ask(world: World, key: str, *requests: tuple[str, str, int], transport: str = "queues") -> list[str]:
    """Send requests from a container; return a line for each."""
    command = (sys.executable, "-c", ASK, json.dumps(requests))
    work = world.command(command, relay=key, relay_transport=transport, env={API_URL_VARIABLE: NOWHERE})
    assert work.ended().return_code == 0, work.log()
    return [json.loads(line)["event"] for line in work.log().splitlines()[1:-1]]


@both_transports
def test_large_bodies_and_no_other_paths_pass(world: World, running: subprocess.Popen[bytes], transport: str) -> None:
    """An XCom of 5 MB and a Variable of 1 MB pass; whatever is not of the Execution API never reaches the server."""
    world.api.requests.clear()
    xcom, variable, *refused = ask(
        world,
        public_key(world, NAMES),
        ("POST", "xcoms/d/r/t/return_value", 5_000_000),
        ("PUT", "variables/large", 1_000_000),
        ("GET", "../api/v2/dags", 0),
        ("GET", "%2e%2e/api/v2/dags", 0),
        ("DELETE", "connections/tested", 0),
        transport=transport,
    )
    assert xcom.endswith(" 201") and variable.endswith(" 204")
    assert len(refused) == 3 and all("403 The relay refused the request" in line for line in refused), refused
    assert [(method, path, len(body)) for method, path, body in world.api.requests] == [
        ("POST", "/execution/xcoms/d/r/t/return_value", 5_000_000),
        ("PUT", "/execution/variables/large", 1_000_000),
    ]


def test_a_refused_task_names_the_server_of_the_host(world: World, running: subprocess.Popen[bytes]) -> None:
    """An error of the Execution API names the host's URL, not the server in the container."""
    world.api.jwt_secret = "another"
    try:
        work = world.task("hello", relay=public_key(world, NAMES), env={API_URL_VARIABLE: NOWHERE})
        assert NOWHERE in (work.ended().reason or "")
    finally:
        world.api.jwt_secret = ""


def test_a_rotated_key_loses_no_running_task(world: World, running: subprocess.Popen[bytes]) -> None:
    """After a rotation, a relay answers containers with the new key and those with the old one."""
    before = public_key(world, NAMES)
    done = world.modalflow_cli.run("relay", "rotate-key", "--app", NAMES.app, environ=os.environ | world.variables)
    assert done.returncode == 0, done.stdout + done.stderr
    after = public_key(world, NAMES)
    assert after != before and after.partition(":")[0] in done.stdout
    for key in (after, before):
        assert ask(world, key, ("GET", "health", 0)) == ["GET health 200"]


@both_transports
def test_a_killed_relay_fails_no_task(world: World, running: subprocess.Popen[bytes], transport: str) -> None:
    """The request that a killed relay had taken is answered by another one."""
    world.api.run_takes = 3.0
    world.api.requests.clear()
    try:
        with relay(world, NAMES) as doomed:
            # The requests of several containers at once, so that each relay has some.
            key, env = public_key(world, NAMES), {API_URL_VARIABLE: NOWHERE}
            tasks = [world.task("hello", relay=key, relay_transport=transport, env=env) for _ in range(4)]
            wait_until(lambda: any(path.endswith("/run") for _, path, _ in world.api.requests), COLD, "a request")
            doomed.kill()
            assert [task.ended().final_state for task in tasks] == ["success"] * 4
    finally:
        world.api.run_takes = 0.0


def test_doctor_and_status_show_the_relay(world: World, running: subprocess.Popen[bytes]) -> None:
    """`modalflow doctor` measures the way over the relay from a container, and `modalflow status` lists relays."""
    environ = {
        **os.environ,
        **world.variables,
        API_URL_VARIABLE: world.api.url,
        "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "relay",
        **TUNNELS,
    }
    done = world.modalflow_cli.run("doctor", "--app", NAMES.app, "--json", environ=environ)
    findings = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert findings["relay key"]["status"] == "ok"
    assert findings["execution API"]["status"] == "ok", findings["execution API"]
    assert findings["relay"]["detail"].startswith("p50 ")

    def reported() -> list[dict[str, Any]]:
        done = world.modalflow_cli.run("status", "--app", NAMES.app, "--json", environ=environ)
        found: list[dict[str, Any]] = json.loads(done.stdout)["relays"]
        return [each for each in found if each["counts"].get("requests")]

    (report,) = wait_until(reported, COLD, "the relay's report")
    assert report["url"] == world.api.url and not report["silent"]
    # Of the doctor's container at least.
    assert report["counts"]["tunnels"]


@pytest.fixture
def driver(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """An executor that uses the relay, and starts one."""
    variables = {
        **world.variables,
        "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
        API_URL_VARIABLE: world.api.url,
        "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
        "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "relay",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(control_plane, "_known", {})
    monkeypatch.setattr(relays, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(relays, "KEY_INTERVAL", 0.5)
    driver = Driver.started()
    yield driver
    driver.executor.end()


def relays_below() -> list[int]:
    """The relays that this process has started, with their imports done or not."""
    return [pid for pid, command in descendants().items() if "modalflow.cli relay --parent" in command]


def test_an_executor_keeps_a_relay_running(world: World, driver: Driver) -> None:
    """The executor's relay answers; a killed one is replaced; a new key is used; and none outlives the executor."""
    request = (sys.executable, "-c", ASK, json.dumps([("GET", "health", 0)]))
    key, (state, info) = driver.run("over-the-relay", request)
    assert state == "success", info
    driver.log_has(key, "GET health 200")
    (first,) = relays_below()
    os.kill(first, signal.SIGKILL)
    driver.until(lambda: [pid for pid in relays_below() if pid != first])
    _, (state, info) = driver.run("over-the-next", request)
    assert state == "success", info
    assert driver.executor._engine is not None
    connection = driver.executor._engine.wiring.connection
    before = connection.relay
    world.modalflow_cli.run("relay", "rotate-key", "--app", NAMES.app, environ=os.environ | world.variables)
    driver.until(lambda: connection.relay > before)
    _, (state, info) = driver.run("with-the-new-key", request)
    assert state == "success", info
    driver.executor.end()
    assert not relays_below()


def test_lost_doubled_and_late_messages_fail_no_task(world: World, running: subprocess.Popen[bytes]) -> None:
    """Every tenth item is lost, every fifth arrives twice, all are late: tasks succeed, each once."""
    queue = f"queue/{NAMES.relay}"
    faults = (
        *(f"{queue}:{kind},p=0.1" for kind in ("lose-put", "lose-get")),
        f"{queue}:double-put,p=0.2",
        "Queue*:delay=30ms±20ms",
    )
    world.api.requests.clear()
    key = public_key(world, NAMES)
    added = [world.faults.add(fault) for fault in faults]
    try:
        tasks = [world.task("hello", relay=key, env={API_URL_VARIABLE: NOWHERE}) for _ in range(3)]
        assert [task.ended().final_state for task in tasks] == ["success"] * 3
        assert sum(fault.happened for fault in world.faults.list()) > 3
    finally:
        world.faults.clear([fault.id for fault in added])
    assert world.api.states() == ["success"] * 3


@pytest.fixture(scope="module")
def restarted(world: World, running: subprocess.Popen[bytes]) -> str:
    """Kill the control plane, and start another one in its place; the relay key."""
    key = public_key(world, NAMES)
    os.kill(world.local.pid, signal.SIGKILL)
    world.local.stop()
    world.local.start()
    return key


def test_a_relay_survives_the_control_plane(world: World, running: subprocess.Popen[bytes], restarted: str) -> None:
    """A relay answers the containers of the next control plane."""
    world.api.requests.clear()
    work = world.task("hello", relay=restarted, env={API_URL_VARIABLE: NOWHERE})
    assert work.ended().final_state == "success", work.log()
    assert world.api.states() == ["success"] and running.poll() is None
