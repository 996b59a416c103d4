"""Containers are forks of one process: nobody can tell, and when that process ends, it is as if each had ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import modal
import pytest

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of
from tests.support import descendants, is_running, wait_until

pytestmark = pytest.mark.local_only

#: How the command line of a new interpreter ends; a fork has its template's.
NEW = "-m modal._container_entrypoint"


@pytest.fixture(scope="module")
def processes(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("process_app", "test-processes", client)
    yield deployed
    deployed.stop()


def test_a_fork_is_as_a_new_process(processes: Deployed) -> None:
    """What user code finds of its process in a fork is what it finds in a new interpreter."""
    command, forked = processes.call("process")
    assert NEW not in command
    # Any variable that only a starting interpreter reads makes it start one.
    new = processes.function("process").with_options(env={"PYTHONFAULTHANDLER": ""})
    command, fresh = new.remote()
    assert NEW in command
    fresh["variables"].remove("PYTHONFAULTHANDLER")
    assert {fact: (forked[fact], value) for fact, value in fresh.items() if forked[fact] != value} == {}


def test_forks_draw_different_numbers(processes: Deployed) -> None:
    """The state of the random module is not the template's."""
    assert processes.call("draws") != processes.call("draws")


def template_of(control_plane: LocalModal) -> int:
    """The process that containers are forked from: the first that the control plane started."""
    return next(iter(descendants(control_plane.pid)))


def test_the_end_of_the_template_is_the_end_of_its_containers(name: str) -> None:
    """When the template is killed all containers end, what they ran runs again, and there is a new template."""
    with LocalModal() as local, client_of(local.url, local.env) as client:
        app = Deployed("process_app", "doomed", client)
        notes = modal.Dict.from_name(name, create_if_missing=True, client=client)
        call = app.function("number_after").spawn(name, 600.0)
        wait_until(lambda: notes.get("begun") == 1, what="the call's beginning")
        template, before = template_of(local), descendants(local.pid)
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: not any(is_running(pid) for pid in before), what="the end of all that there was")
        assert call.get(timeout=60) == 2
        assert template_of(local) != template
        assert "and its 1 containers" in local.stderr()


def test_without_the_fork_server() -> None:
    """Then every container is a new interpreter, and ends with its template all the same."""
    with LocalModal(fork_server=False) as local:
        with client_of(local.url, local.env) as client:
            command, _ = Deployed("process_app", "new", client).call("process")
        assert NEW in command
