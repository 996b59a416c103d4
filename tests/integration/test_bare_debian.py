"""The worker's images, built over a minimal Debian with nothing of this machine: tasks run in gVisor, over the relay.

As near to a first deployment on Modal as a machine without Modal gets. Packages come from the package index while
images are built; containers have no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modalflow.emulator.options import Options
from modalflow.names import API_URL_VARIABLE, Names
from tests.command_line import CommandLine
from tests.integration.relayed import NOWHERE, public_key, relay
from tests.integration.world import DEPLOYMENT, World, deployed_worker
from tests.support import in_gvisor, over_base

pytestmark = [
    pytest.mark.skipif(not over_base() or not in_gvisor(), reason="`make test-gvisor BARE=1` runs it"),
    pytest.mark.timeout(DEPLOYMENT + 300),
]

#: A package that Airflow does not need, and its version.
PACKAGE = "cowsay==6.1"

#: An image of a user's: a program of Debian, a package without bytecode, a folder.
WORKER = f"""
import modal
import modalflow

image = (
    modal.Image.debian_slim()
    .apt_install("less")
    .run_commands("python -m pip install --no-compile {PACKAGE} && echo made > /opt/made")
)
worker = modalflow.Worker([modalflow.Profile(image=image)])
"""

FACTS = """
import importlib.metadata, importlib.util, json, os, sys
import airflow, modalflow
places = (sys.argv[1], "/usr/bin/less", "/opt/made", "/etc/debian_version")
print("facts", json.dumps({
    "kernel": os.uname().release,
    "airflow": importlib.metadata.version("apache-airflow-core"),
    "files": [path for path in places if os.path.exists(path)],
    "packages": sorted({each.metadata["Name"].lower() for each in importlib.metadata.distributions()}),
    "compiled": all(
        os.path.exists(importlib.util.cache_from_source(importlib.util.find_spec(name).origin))
        for name in ("airflow", "json", "cowsay") if importlib.util.find_spec(name)
    ),
}))
"""


@pytest.fixture(scope="module")
def mirrored(modalflow_cli: CommandLine) -> Iterator[World]:
    """The worker whose image has all packages of this environment; no container has a network."""
    with deployed_worker(modalflow_cli, "mirrored", modal_options=Options(network="none")) as world:
        yield world


def facts_of(world: World, names: Names) -> dict[str, Any]:
    """Run a task over the relay, and return what a container of the same image finds."""
    world.api.requests.clear()
    with relay(world, names):
        task = world.task("hello", relay=public_key(world, names), env={API_URL_VARIABLE: NOWHERE})
        assert task.ended().final_state == "success", task.log()
    assert world.api.states() == ["success"]
    command = world.command(("python", "-c", FACTS, str(Path(__file__))))
    assert command.ended().return_code == 0, command.log()
    (line,) = (event for event in map(_event, command.log().splitlines()) if event.startswith("facts "))
    found: dict[str, Any] = json.loads(line.removeprefix("facts "))
    assert (found["kernel"], found["compiled"]) == ("4.4.0", True)
    return found


def _event(line: str) -> str:
    return str(json.loads(line).get("event"))


def test_a_mirror_of_this_environment(mirrored: World) -> None:
    """The default image: every package of this environment, and no file of this machine."""
    found = facts_of(mirrored, Names("mirrored"))
    assert found["files"] == ["/etc/debian_version"]
    assert {"apache-airflow-core", "sqlalchemy", "pytest"} <= set(found["packages"])


@pytest.mark.parametrize("kind", ["no-mirror", "requirements", "own"])
def test_other_images(mirrored: World, tmp_path: Path, kind: str) -> None:
    """Airflow with its providers alone, the same with a requirements file, and an image of a user's own."""
    (tmp_path / "requirements.txt").write_text(f"{PACKAGE}\n")
    (tmp_path / "worker.py").write_text(WORKER)
    arguments = {
        "no-mirror": ["--no-mirror"],
        "requirements": ["--requirements", str(tmp_path / "requirements.txt")],
        "own": [str(tmp_path / "worker.py")],
    }
    found = facts_of(mirrored.deploy("--app", kind, *arguments[kind]), Names(kind))
    assert ("cowsay" in found["packages"]) == (kind != "no-mirror")
    assert "pytest" not in found["packages"]
    assert (kind == "own") == ("/usr/bin/less" in found["files"] and "/opt/made" in found["files"])
