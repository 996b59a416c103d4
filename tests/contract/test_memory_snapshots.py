"""Memory snapshots of containers in gVisor: taken of the first one, and others are restored from them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import pytest
from modal_proto import api_pb2

from modalflow.emulator.containers.launch import snapshots
from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.sandboxes.supervision import FAILED, FINISHED
from tests.contract import deploying
from tests.contract.deploying import Deployed
from tests.contract.isolated import problem_with, running
from tests.sdk import rpc
from tests.support import wait_until

pytestmark = pytest.mark.local_only

#: Of an input that is too large for its message: the container fetches it over HTTP.
LARGE = b"x" * 3_000_000


@dataclass
class World:
    """A control plane with containers in gVisor, and a deployed app."""

    control_plane: ControlPlane
    client: modal.Client
    app: Deployed

    @property
    def snapshots(self) -> list[Path]:
        return sorted(self.control_plane.state.root.glob("snapshots/*"))

    def of(self, tag: str) -> Path:
        """The snapshot of a function."""
        function_id = self.app.function(tag).hydrate().object_id
        [found] = [path for path in self.snapshots if path.name.startswith(function_id)]
        return found

    def restored(self, *servers: tuple[str, int]) -> dict[str, Any]:
        seen, content = self.app.call("restored", *servers, LARGE)
        assert content == LARGE
        return dict(seen)

    def log(self) -> str:
        app_id = modal.App.lookup(self.app.name, client=self.client).app_id or ""
        request = api_pb2.AppFetchLogsRequest(app_id=app_id, limit=1_000)
        return "".join(item.data for b in rpc(self.client, "AppFetchLogs", request).batches for item in b.items)


@contextlib.contextmanager
def serving(host: str) -> Iterator[tuple[str, int]]:
    """A server that greets each of its clients."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(connection.recv(100) + f" from {host}".encode())

    with socket.create_server((host, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def a_world(state: Path, **options: Any) -> Iterator[World]:
    if problem := problem_with(Isolation.GVISOR):
        pytest.skip(problem)
    with running(Isolation.GVISOR, state, **options) as control_plane, pytest.MonkeyPatch.context() as environment:
        environment.setenv("MODAL_SERVER_URL", control_plane.url)
        credentials = (control_plane.parts.base.credentials.token_id, control_plane.parts.base.credentials.token_secret)
        with modal.Client(control_plane.url, api_pb2.CLIENT_TYPE_CLIENT, credentials) as client:
            yield World(control_plane, client, Deployed("snapshots_app", "snapshotted", client))
    assert not list(state.glob("snapshots/*"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_world(tmp_path_factory.mktemp("state") / ("deep" * 30)) as world:
        yield world


def test_later_containers_are_restored_from_the_first(world: World) -> None:
    """Memory, files, processes, threads and sockets are the first one's; identity, clocks, randomness and network are
    the container's own."""
    address = socket.gethostbyname(socket.gethostname())
    with serving("127.0.0.1") as loopback, serving(address) as elsewhere:
        began = time.time()
        first, second = (world.restored(loopback, elsewhere) for _ in range(2))
    assert first["imported by"] == first["container"] == second["imported by"] != second["container"]
    assert second["file of the import"] == first["container"]
    assert began < first["time"] < second["time"] < time.time()
    assert first["since the import"] < second["since the import"] < time.time() - began + 5
    assert first["random"] != second["random"]
    # As on Modal: code that must not share it seeds it in a hook after the snapshot.
    assert first["python's random"] == second["python's random"]
    for seen in (first, second):
        assert (seen["host name"], seen["threads go on"]) == ("modal", True)
        assert (seen["process"], seen["raw socket"]) == ("AN ANSWER", "PermissionError")
        assert (seen["server"], seen["other server"], seen["nothing there"]) == (
            "hello from 127.0.0.1",
            f"hello from {address}",
            "ConnectionRefusedError",
        )
    assert "restored: a memory snapshot of" in world.log()


def test_hooks_run_before_and_after_the_snapshot(world: World) -> None:
    """Hooks with snap=True run once for each set of parameters; the others run in each container."""
    for name in ("a", "b"):
        first, second = (
            modal.Cls.from_name(world.app.name, "Hooks", client=world.client)(name=name).so_far.remote()
            for _ in range(2)
        )
        assert first[0] == second[0] and first[0].startswith(f"snap {name} ta-")
        assert first[1] == first[0].replace("snap", "enter") != second[1]


def test_tunnels_lead_into_a_restored_container(world: World) -> None:
    """modal.forward works before and after a restoration."""
    for _ in range(2):
        with modal.Queue.ephemeral(client=world.client) as queue:
            call = world.app.function("forwards").spawn(queue)
            address = queue.get(timeout=60)
            assert address is not None
            with socket.create_connection(address, 30) as connection:
                connection.sendall(b"through")
                assert connection.recv(100) == b"THROUGH"
            call.get(timeout=60)


@pytest.mark.parametrize("to", ["control plane", "gateway"])
def test_a_container_that_cannot_be_written_runs_without_a_snapshot(
    world: World, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one goes on, or starts again; later ones are started anew. The log has the reason."""
    monkeypatch.setattr(snapshots, "CLOSING_PATIENCE", 1.0)
    keeps = modal.Cls.from_name(world.app.name, "KeepsAConnection", client=world.client)(to=to)
    seen = [keeps.containers.remote() for _ in range(2)]
    assert all(before == after for before, after in seen) and seen[0] != seen[1]
    assert "a memory snapshot cannot be taken" in world.log()


def test_a_container_without_a_gateway_runs_without_a_snapshot(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts again, in the network of the machine."""
    shutil.copytree(snapshots.PROGRAMS, tmp_path / "inside")
    broken = "\n\ndef accept_all_addresses() -> None:\n    raise OSError('not in this version')\n"
    with (tmp_path / "inside" / "netstack.py").open("a") as file:
        file.write(broken)
    monkeypatch.setattr(snapshots, "PROGRAMS", tmp_path / "inside")
    hooks = modal.Cls.from_name(world.app.name, "Hooks", client=world.client)(name="c")
    first, second = hooks.so_far.remote()
    assert first == second.replace("enter", "snap")
    assert "a memory snapshot cannot be taken (its container has no network)" in world.log()
    assert "modalflow: not in this version" in world.log()


def test_a_damaged_snapshot_is_not_used(world: World) -> None:
    """The container starts without it, the log has the reason, and the next one does not try it again."""
    nowhere = ("127.0.0.1", 1)
    world.restored(nowhere, nowhere)
    for file in (world.of("restored") / FINISHED).iterdir():
        file.write_bytes(b"damaged")
    for _ in range(2):
        seen = world.restored(nowhere, nowhere)
        assert seen["imported by"] == seen["container"]
    assert (world.of("restored") / FAILED).exists()
    assert world.log().count("modalflow: a container cannot be restored from its memory snapshot (") == 1


def test_a_changed_function_has_a_new_snapshot(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier one is removed."""
    (tmp_path / "snapshots_app.py").write_text(f"{(deploying.APPS / 'snapshots_app.py').read_text()}\n# changed\n")
    nowhere = ("127.0.0.1", 1)
    world.restored(nowhere, nowhere)
    before = world.of("restored")
    monkeypatch.setattr(deploying, "APPS", tmp_path)
    world.app.deploy()
    seen = world.restored(nowhere, nowhere)
    assert seen["imported by"] == seen["container"]
    assert world.of("restored") != before
    wait_until(lambda: not before.exists(), what="the removal of the earlier snapshot")


def test_without_a_network(tmp_path: Path) -> None:
    """With --network none, a restored container reaches the control plane alone."""
    with a_world(tmp_path, network="none") as world, serving("127.0.0.1") as loopback:
        first, second = (world.restored(loopback, ("192.0.2.1", 80)) for _ in range(2))
        assert first["imported by"] == second["imported by"] != second["container"]
        for seen in (first, second):
            assert seen["server"] == "ConnectionRefusedError" and seen["other server"] == "OSError"
