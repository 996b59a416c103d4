"""What users of Dicts, Queues, Volumes and environments see of a control plane that was killed: nothing."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpclib.client
import modal
import pytest
from modal_proto import api_grpc, api_pb2

from modalflow.emulator.local import LocalModal, StartError
from tests.durability.plane import Plane
from tests.sdk import client_of


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A control plane that keeps its state."""
    with Plane(tmp_path / "state") as running:
        yield running


@pytest.fixture
def client(plane: Plane) -> Iterator[modal.Client]:
    """One client over all the restarts: its token stays good."""
    assert plane.address is not None
    with client_of(plane.address.url, plane.address.variables()) as connected:
        yield connected


def test_objects_are_as_they_were(plane: Plane, client: modal.Client) -> None:
    """Handles from before go on working, with all that was put, without what was taken; ephemeral ones too."""
    modal.Environment.objects.create("other", client=client)
    entries = modal.Dict.from_name("d", create_if_missing=True, environment_name="other", client=client)
    entries.update({"kept": [1, 2], "popped": 1})
    entries.pop("popped")
    items = modal.Queue.from_name("q", create_if_missing=True, client=client)
    items.put_many(["taken", "next", "last"])
    items.put("elsewhere", partition="p")
    assert items.get() == "taken"
    volumes = [
        modal.Volume.from_name(f"v{version}", create_if_missing=True, version=version, client=client)
        for version in (1, 2)
    ]
    for volume in volumes:
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"data" * 1000), "/a/file")
            batch.put_file(io.BytesIO(b"gone"), "/gone")
        volume.remove_file("/gone")
    with modal.Dict.ephemeral(client=client) as ephemeral:
        ephemeral["here"] = True
        plane.kill()
        plane.start()
        assert ephemeral["here"] is True

    assert dict(entries.items()) == {"kept": [1, 2]}
    assert items.get_many(5) == ["next", "last"] and items.get(partition="p") == "elsewhere"
    assert items.len(total=True) == 0
    for volume in volumes:
        assert [entry.path for entry in volume.listdir("/", recursive=True)] == ["a", "a/file"]
        assert b"".join(volume.read_file("a/file")) == b"data" * 1000


async def _send(plane: Plane, name: str, request: Any, key: str) -> Any:
    """Send one RPC under that idempotency key, on a connection of its own, as the SDK's repetition would come."""
    assert plane.address is not None
    where = urlsplit(plane.address.url)
    metadata = {
        "x-modal-token-id": plane.address.token_id,
        "x-modal-token-secret": plane.address.token_secret,
        "x-idempotency-key": key,
    }
    async with grpclib.client.Channel(where.hostname, where.port) as channel:
        return await getattr(api_grpc.ModalClientStub(channel), name)(request, metadata=metadata)


async def test_a_call_repeated_over_a_crash_has_one_effect(plane: Plane, client: modal.Client) -> None:
    """Whoever did not hear the answer asks the next control plane and gets the first one's, with no second effect."""
    made = await _send(
        plane, "DictGetOrCreate", api_pb2.DictGetOrCreateRequest(object_creation_type=_EPHEMERAL), "create"
    )
    entry = api_pb2.DictEntry(key=b"k", value=b"mine")
    claim = api_pb2.DictUpdateRequest(dict_id=made.dict_id, updates=[entry], if_not_exists=True)
    pop = api_pb2.DictPopRequest(dict_id=made.dict_id, key=b"k")
    queue = await _send(
        plane, "QueueGetOrCreate", api_pb2.QueueGetOrCreateRequest(object_creation_type=_EPHEMERAL), "queue"
    )
    get = api_pb2.QueueGetRequest(queue_id=queue.queue_id, n_values=1)
    put = api_pb2.QueuePutRequest(queue_id=queue.queue_id, values=[b"1", b"2"])
    calls = [("DictUpdate", claim), ("QueuePut", put), ("QueueGet", get)]
    first = [await _send(plane, name, request, name) for name, request in calls]
    plane.kill()
    plane.start()
    assert (
        await _send(plane, "DictGetOrCreate", api_pb2.DictGetOrCreateRequest(object_creation_type=_EPHEMERAL), "create")
        == made
    )
    assert [await _send(plane, name, request, name) for name, request in calls] == first
    assert first[0].created and list(first[2].values) == [b"1"]
    popped = await _send(plane, "DictPop", pop, "pop")
    plane.kill()
    plane.start()
    assert await _send(plane, "DictPop", pop, "pop") == popped
    assert popped.value == b"mine" and not (await _send(plane, "DictPop", pop, "another pop")).found
    assert list((await _send(plane, "QueueGet", get, "another get")).values) == [b"2"]


_EPHEMERAL = api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL


def test_a_folder_that_cannot_be_used_is_said_in_a_line(tmp_path: Path) -> None:
    """In use, newer, damaged: whoever starts a control plane reads what is wrong and what to do, and no traceback."""
    folder = tmp_path / "state"
    with LocalModal(state_dir=folder) as first:
        with pytest.raises(StartError) as second:
            LocalModal(state_dir=folder).start()
        assert str(second.value).endswith(
            "is in use by another local control plane; stop that one, or use another folder"
        )
        os.kill(first.pid, signal.SIGKILL)
    with sqlite3.connect(folder / "state.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StartError, match=r"^\S+ was written by a newer modalflow \(format 999"):
        LocalModal(state_dir=folder).start()
    for file in folder.glob("state.sqlite3*"):
        file.write_bytes(b"no database, but long enough to be taken for one" * 100)
    command = [sys.executable, "-m", "modalflow.cli", "local", "start", "--name", "damaged", "--state-dir", str(folder)]
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {folder}/state.sqlite3 cannot be read (")
    assert done.stderr.endswith("); move it away to start again\n")


def test_the_command_line_starts_it_again(tmp_path: Path) -> None:
    """``local start --state-dir X --port P`` twice, a stop between: the same variables let the same clients in."""
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}

    def local(*arguments: str) -> str:
        command = [sys.executable, "-m", "modalflow.cli", "local", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def started(port: str) -> dict[str, str]:
        local("start", "--state-dir", str(tmp_path / "state"), "--port", port)
        exports = (line.removeprefix("export ").partition("=") for line in local("env").splitlines())
        return {name: value for name, _, value in exports}

    variables = started("0")
    try:
        url = variables["MODAL_SERVER_URL"]
        with client_of(url, variables) as client:
            entries = modal.Dict.from_name("d", create_if_missing=True, client=client)
            entries["a"] = 1
            local("stop")
            assert started(url.rpartition(":")[2]) == variables
            assert entries["a"] == 1
    finally:
        local("stop")
