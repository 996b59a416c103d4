"""What a container is like from the inside, how long it lives, and what becomes of work whose container is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import modal
import pytest
from modal.exception import RemoteError

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.contract.inspecting import containers, stop_container
from tests.support import descendants, is_running, shows, wait_until


@pytest.fixture(scope="module")
def compute(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", "test-containers", client)
    yield deployed
    deployed.stop()


def test_a_container_is_reused(compute: Deployed) -> None:
    """Calls one after another run in the same container, each knowing its own call and input."""
    first, second = compute.call("where"), compute.call("where")
    assert first["container"] == second["container"]
    assert first["pid"] == second["pid"]
    assert first["call"] != second["call"]
    assert first["cwd"] == "/root"


def test_several_containers_run_at_once(compute: Deployed) -> None:
    """Calls at the same time run in containers of their own."""
    calls = [compute.function("sleep").spawn(1.5, "unused") for _ in range(3)]
    assert len({call.get(timeout=60) for call in calls}) == 3


def test_max_containers(compute: Deployed) -> None:
    """With max_containers=1 calls wait for each other."""
    calls = [compute.function("one_at_a_time").spawn(0.3) for _ in range(3)]
    runs = sorted((call.get(timeout=60) for call in calls), key=lambda run: run[1])
    assert len({container for container, _, _ in runs}) == 1
    assert all(earlier[2] <= later[1] for earlier, later in pairwise(runs))


def test_concurrent_inputs_share_a_container(compute: Deployed) -> None:
    """@modal.concurrent runs as many inputs at once in one container as it says."""
    compute.call("together", 0.0)
    calls = [compute.function("together").spawn(1.0) for _ in range(4)]
    runs = [call.get(timeout=60) for call in calls]
    assert len({container for container, _, _ in runs}) == 1
    assert max(began for _, began, _ in runs) < min(ended for _, _, ended in runs)


def test_single_use_containers(compute: Deployed) -> None:
    """A single-use container runs one input."""
    assert len({compute.call("once") for _ in range(2)}) == 2


def test_idle_containers_end(compute: Deployed) -> None:
    """A container that was idle for the scaledown window ends, and the next call gets a new one."""
    container = compute.call("short_lived")
    assert container in containers(compute.client)
    wait_until(lambda: container not in containers(compute.client), timeout=20, what="the scale-down", interval=0.2)
    assert compute.call("short_lived") != container


def test_files_of_the_app_are_where_it_says(compute: Deployed) -> None:
    """Files added to an image are at their absolute paths, in folders the host has and in others."""
    assert compute.call("read", "/opt/compute-data/here/data.txt") == "data of the app\n"
    assert compute.call("read", "/data-at-root.txt") == "data of the app\n"
    assert not Path("/opt/compute-data").exists()


@pytest.mark.local_only
def test_writes_stay_in_the_container(compute: Deployed, tmp_path: Path) -> None:
    """What a container writes outside of its volumes is its own: the host sees nothing of it."""
    (tmp_path / "of-the-host").write_text("readable")
    assert compute.call("read", str(tmp_path / "of-the-host")) == "readable"
    assert compute.call("write", str(tmp_path / "written"), "mine") == "mine"
    assert compute.call("write", "/modalflow-test/written", "mine") == "mine"
    assert not (tmp_path / "written").exists()
    assert not Path("/modalflow-test").exists()


def test_environment_variables(compute: Deployed) -> None:
    """A container has the image's variables and its secrets, secrets before the image."""
    plain, secret = compute.call("environment"), compute.call("environment_with_secret")
    assert plain["FROM_IMAGE"] == "image value"
    assert (plain["BOTH"], secret["BOTH"]) == ("image", "secret")
    assert secret["FROM_SECRET"] == "secret value"
    assert "FROM_SECRET" not in plain
    assert plain["MODAL_IS_REMOTE"] == "1"


@pytest.mark.local_only
def test_the_environment_is_clean(compute: Deployed, local: LocalModal) -> None:
    """Nothing of the host's own environment reaches a container, least of all a client's token."""
    variables = compute.call("environment")
    assert local.env["MODAL_TOKEN_SECRET"] not in variables.values()
    assert not [name for name in variables if name.startswith(("AIRFLOW", "PYTEST"))]
    assert "MODAL_TOKEN_ID" not in variables


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_lost_container_is_replaced(compute: Deployed, notes: modal.Dict, name: str, how: str) -> None:
    """An input whose container was lost runs again in another one."""
    assert compute.call("dies", name, 1, how) == 2


@pytest.mark.parametrize(("how", "said"), [("kill", r"signal 9 \(SIGKILL\)"), ("exit", "code 3")])
def test_containers_are_not_lost_for_ever(compute: Deployed, notes: modal.Dict, name: str, how: str, said: str) -> None:
    """After a few lost containers the call fails, and says how the last one ended."""
    with pytest.raises(RemoteError, match=said):
        compute.call("dies", name, 99, how)
    assert notes["tries"] == 3


def test_volumes_are_at_their_mount_path(compute: Deployed, client: modal.Client, volume: modal.Volume) -> None:
    """What a function writes to a volume's mount path is in the volume when it has ended, and nowhere else."""
    writer = compute.function("write").with_options(volumes={"/vol/of-the-test": volume})
    assert writer.remote("/vol/of-the-test/deep/file.txt", "kept") == "kept"
    reader = compute.function("read").with_options(volumes={"/mnt/elsewhere": volume})

    def read() -> str:
        return b"".join(volume.read_file("deep/file.txt")).decode()

    for container in containers(client, compute.name):
        stop_container(client, container)
    wait_until(lambda: _exists(volume, "deep/file.txt"), what="the commit at the container's end", timeout=20)
    assert read() == "kept"
    assert reader.remote("/mnt/elsewhere/deep/file.txt") == "kept"


@pytest.mark.local_only
def test_nothing_that_a_container_started_outlives_it(compute: Deployed, local: LocalModal, notes: modal.Dict) -> None:
    """A process that a function left behind, in a session of its own, ends with the container."""
    compute.call("leaves_a_child_behind")

    def behind() -> list[int]:
        return [pid for pid, command in descendants(local.pid).items() if shows(command, "time.sleep(600)")]

    left = wait_until(behind, what="the process of the function")
    for container in containers(compute.client, compute.name):
        stop_container(compute.client, container)
    wait_until(lambda: not any(is_running(pid) for pid in left), what="the end of what was left behind")


@pytest.mark.local_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_containers_end_with_the_control_plane(tmp_path: Path, number: signal.Signals) -> None:
    """However the control plane ends, all containers and what they started end with it."""
    with LocalModal(state_dir=tmp_path) as other:
        script = (
            "import sys, modal\n"
            "from tests.contract.deploying import Deployed\n"
            "app = Deployed('compute_app', 'doomed', modal.Client.from_env())\n"
            "app.call('leaves_a_child_behind')\n"
            "app.function('sleep').spawn(600, 'unused')\n"
            "app.call('add', 1, 2)\n"
        )
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", script], check=True, cwd=root, env={**os.environ, **other.env})
        running = descendants(other.pid)
        assert any(shows(command, "time.sleep(600)") for command in running.values())
        os.kill(other.pid, number)
        wait_until(lambda: not any(is_running(pid) for pid in running), timeout=15, what="the end of all containers")


def _exists(volume: modal.Volume, path: str) -> bool:
    return any(entry.path == path for entry in volume.listdir("/", recursive=True))
