"""``modalflow local fault`` as a user types it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from tests.command_line import CommandLine
from tests.sdk import client_of


@pytest.fixture(scope="module")
def modalflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """The commands of a user who has started a control plane with a fault."""
    folder: Path = tmp_path_factory.mktemp("user")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL", "XDG_"))}
    environ = {**kept, "XDG_STATE_HOME": str(folder)}
    with CommandLine(environ, "modalflow local") as modalflow:
        run(modalflow, "start", "--fault", "DictGet:unavailable-after,count=1", "--fault-seed", "3")
        yield modalflow
        run(modalflow, "stop")


def run(modalflow: CommandLine, *arguments: str, code: int = 0) -> str:
    """Run ``modalflow local …``, expecting that exit code; return what it said."""
    done = modalflow.run("local", *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_faults_are_listed_added_and_cleared(modalflow: CommandLine) -> None:
    """What was given at the start is listed with what it did; more can be added, and taken away by id."""
    variables = json.loads(run(modalflow, "env", "--json"))
    with client_of(variables["MODAL_SERVER_URL"], variables) as client, modal.Dict.ephemeral(client=client) as dict_:
        dict_["key"] = 1
        assert dict_["key"] == 1
    [first] = json.loads(run(modalflow, "fault", "list", "--json"))
    assert (first["id"], first["happened"], first["last"][0]["subject"]) == ("f1", 1, "DictGet")
    added = run(modalflow, "fault", "add", "*:delay=1ms", "clock:skew=-30s")
    assert [line.split()[-1] for line in added.splitlines()] == ["*:delay=1ms", "clock:skew=-30s"]
    assert run(modalflow, "fault", "clear", "f1", "f3") == "2 removed.\n"
    assert run(modalflow, "fault", "list").split()[0] == "f2"
    assert "There is no fault 'f9'" in run(modalflow, "fault", "clear", "f9", code=1)
    assert run(modalflow, "fault", "clear") == "1 removed.\n"
    assert run(modalflow, "fault", "list") == ""


def test_a_mistake_is_told(modalflow: CommandLine) -> None:
    """A fault that cannot be read ends the command with what is wrong and an example, at the start as well."""
    assert "expected unavailable" in run(modalflow, "fault", "add", "DictGet:unavailabel", code=1)
    assert "no living container" in run(modalflow, "fault", "now", "container/etl:preempt", code=1)
    said = run(modalflow, "start", "--name", "other", "--fault", "DictGet:unavailabel", code=2)
    assert "expected unavailable" in said
    assert "Traceback" not in said
    assert "Start one: modalflow local start" in run(modalflow, "fault", "list", "--name", "nobody", code=1)


def test_containers_and_kinds_can_be_looked_up(modalflow: CommandLine) -> None:
    """Where no container lives none is listed; the kinds are there without any control plane."""
    assert run(modalflow, "fault", "containers", "--json") == "[]\n"
    assert "container/etl/load:preempt" in run(modalflow, "fault", "kinds")
