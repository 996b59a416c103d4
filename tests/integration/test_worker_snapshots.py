"""A worker with ``Profile(memory_snapshot=True)`` in gVisor: its zygote has Airflow from an earlier container."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.sandboxes.supervision import FINISHED
from modalflow.protocol.messages import State
from tests.command_line import CommandLine
from tests.contract.isolated import problem_with
from tests.inside import asked, zygotes_of
from tests.integration.world import World, deployed_worker

WORKER = """
import modalflow
worker = modalflow.Worker(profiles=[modalflow.Profile("default", memory_snapshot=True, concurrency=1)])
"""

#: What a container must not share with another one.
FACTS = ("python3", "-c", "import os; print(os.environ['MODAL_TASK_ID'], os.urandom(8).hex(), flush=True)")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine, state: Path) -> Iterator[World]:
    if problem := problem_with(Isolation.GVISOR):
        pytest.skip(problem)
    file = state.parent / "worker.py"
    file.write_text(WORKER)
    options = Options(isolation="gvisor", state_dir=state)
    with deployed_worker(modalflow_cli, "snapshotted-worker", str(file), modal_options=options) as world:
        yield world


def test_tasks_run_in_containers_restored_from_a_snapshot(world: World, state: Path) -> None:
    """A later container has the first one's zygote, with Airflow imported. Claims, logs and the identity of tasks are
    those of their own container."""
    sleeping = world.command(("sleep", "300"))
    first = sleeping.running().container_id
    assert list(state.glob(f"snapshots/*/{FINISHED}"))
    task = world.task("hello")
    entry = task.ended()
    assert (entry.state, entry.container_id != first) == (State.SUCCESS, True), task.log()
    assert entry.container_id in task.log() and first not in task.log()
    # The variables of its start are the first container's.
    assert asked(entry.container_id, zygotes_of, first) == asked(first, zygotes_of, first) != []
    facts = [world.command(FACTS) for _ in range(2)]
    for work in facts:
        assert work.ended().state is State.SUCCESS, work.log()
    shown = [json.loads(line)["event"].split() for work in facts for line in work.log().splitlines()[1:2]]
    assert [container for container, _ in shown] == [work.ended().container_id for work in facts]
    assert len({random for _, random in shown}) == 2
    sleeping.calls[0].cancel()
    assert sleeping.ended().container_id == first
