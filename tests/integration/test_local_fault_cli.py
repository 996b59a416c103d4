"""``modalflow local fault`` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from tests.sdk import client_of

MODALFLOW = [sys.executable, "-m", "modalflow.cli", "local"]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user who has started a control plane with a fault."""
    folder: Path = tmp_path_factory.mktemp("user")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL", "XDG_"))}
    environ = {**kept, "XDG_STATE_HOME": str(folder)}
    run(environ, "start", "--fault", "DictGet:unavailable-after,count=1", "--fault-seed", "3")
    yield environ
    run(environ, "stop")


def run(environ: dict[str, str], *arguments: str, code: int = 0) -> str:
    """Run ``modalflow local …``, expecting that exit code; return what it said."""
    done = subprocess.run([*MODALFLOW, *arguments], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_faults_are_listed_added_and_cleared(environ: dict[str, str]) -> None:
    """What was given at the start is listed with what it did; more can be added, and taken away by id."""
    variables = json.loads(run(environ, "env", "--json"))
    with client_of(variables["MODAL_SERVER_URL"], variables) as client, modal.Dict.ephemeral(client=client) as dict_:
        dict_["key"] = 1
        assert dict_["key"] == 1
    [first] = json.loads(run(environ, "fault", "list", "--json"))
    assert (first["id"], first["happened"], first["last"][0]["subject"]) == ("f1", 1, "DictGet")
    added = run(environ, "fault", "add", "*:delay=1ms", "clock:skew=-30s")
    assert [line.split()[-1] for line in added.splitlines()] == ["*:delay=1ms", "clock:skew=-30s"]
    assert run(environ, "fault", "clear", "f1", "f3") == "2 removed.\n"
    assert run(environ, "fault", "list").split()[0] == "f2"
    assert "There is no fault 'f9'" in run(environ, "fault", "clear", "f9", code=1)
    assert run(environ, "fault", "clear") == "1 removed.\n"
    assert run(environ, "fault", "list") == ""


def test_a_mistake_is_told(environ: dict[str, str]) -> None:
    """A fault that cannot be read ends the command with what is wrong and an example, at the start as well."""
    assert "expected unavailable" in run(environ, "fault", "add", "DictGet:unavailabel", code=1)
    assert "no living container" in run(environ, "fault", "now", "container/etl:preempt", code=1)
    said = run(environ, "start", "--name", "other", "--fault", "DictGet:unavailabel", code=2)
    assert "expected unavailable" in said
    assert "Traceback" not in said
    assert "Start one: modalflow local start" in run(environ, "fault", "list", "--name", "nobody", code=1)


def test_containers_and_kinds_can_be_looked_up(environ: dict[str, str]) -> None:
    """Where no container lives none is listed; the kinds are there without any control plane."""
    assert run(environ, "fault", "containers", "--json") == "[]\n"
    assert "container/etl/load:preempt" in run(environ, "fault", "kinds")
