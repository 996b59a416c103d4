"""A state folder on a disk that becomes full: what needs room is refused, all else goes on, and it recovers."""

from __future__ import annotations

import io
import os
import re
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import modal
import pytest
from modal_proto import api_pb2

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of, rpc
from tests.support import wait_until

MEBIBYTE = 2**20

FULL = "No space left on device.*in its state folder .*/state"


class SmallDisk:
    """A file system of 24 MiB with a state folder on it."""

    def __init__(self, path: Path) -> None:
        self.state = path / "state"
        self._filling = path / "filling"

    def fill(self, *, but: int = 0) -> None:
        """Leave that many bytes free."""
        with self._filling.open("ab", buffering=0) as file:
            found = os.statvfs(self._filling)
            left = found.f_bavail * found.f_frsize - but
            os.posix_fallocate(file.fileno(), file.tell(), max(left, 1))

    def free(self) -> None:
        self._filling.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not allow a file system of its own: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def running(disk: SmallDisk) -> Iterator[modal.Client]:
    """A control plane on that disk, and this process's client for it."""
    before = dict(os.environ)
    with LocalModal(state_dir=disk.state) as local:
        os.environ.update(local.env)
        try:
            with client_of(local.url, local.env) as client:
                yield client
        finally:
            os.environ.clear()
            os.environ.update(before)


def full() -> pytest.RaisesExc[BaseException]:
    return pytest.raises(modal.exception.ResourceExhaustedError, match=FULL)


def test_a_full_disk_refuses_what_needs_room_and_nothing_else(disk: SmallDisk) -> None:
    """Reads, calls with small results, ends and removals go on, and the next start finds all that was acknowledged."""
    with running(disk) as client:
        compute = Deployed("compute_app", "full-disk", client)
        assert compute.call("makes", 10)
        things = modal.Dict.from_name("things", create_if_missing=True, client=client)
        things["before"] = 1
        queue = modal.Queue.from_name("queue", create_if_missing=True, client=client)
        address = rpc(client, "BlobCreate", api_pb2.BlobCreateRequest()).upload_url
        volume = modal.Volume.from_name("volume", create_if_missing=True, version=2, client=client)
        disk.fill()

        with full():
            things["large"] = b"x" * MEBIBYTE
        with full():
            compute.call("echo", b"x" * 5 * MEBIBYTE)
        with full():
            compute.call("makes", 5 * MEBIBYTE)
        with pytest.raises(modal.exception.ConflictError, match=FULL):
            compute.function("makes").remote(MEBIBYTE)
        with pytest.raises(modal.exception.ConflictError, match=FULL):
            queue.put(b"x" * MEBIBYTE)
        with pytest.raises(urllib.error.HTTPError, match="507") as refused:
            upload(address, b"x" * 20 * MEBIBYTE)
        assert re.search(FULL, refused.value.read().decode())
        assert list((disk.state / "blobs").iterdir()) == []
        with full(), volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(os.urandom(9 * MEBIBYTE)), "large")
        assert len(compute.call("makes", 10)) == 10
        call = compute.function("prints").spawn(3)
        call.get(timeout=60)
        assert things["before"] == 1

        # Until the reserve is used up as well.
        acknowledged = 0
        with full():
            while acknowledged < 1_000:
                things[f"small {acknowledged}"] = os.urandom(20_000)
                acknowledged += 1
        assert acknowledged > 3
        assert things["before"] == 1
        # The change during which the last room went may be refused and still take effect, once.
        assert things.len() in (acknowledged + 1, acknowledged + 2)
        assert modal.Dict.from_name("things", create_if_missing=True, client=client)["before"] == 1
        with full():
            modal.Dict.from_name("new", create_if_missing=True, client=client).hydrate()
        with full():
            compute.function("makes").spawn(1)
        assert len(things.pop("small 0")) == 20_000

        disk.free()
        wait_until(lambda: _put(things, "after", 2), what="the room to be noticed")
        assert len(compute.call("makes", 5 * MEBIBYTE)) == 5 * MEBIBYTE
        queue.put("item")

    with running(disk) as client:
        things = modal.Dict.from_name("things", client=client)
        expected = {"before", "after", *(f"small {n}" for n in range(1, acknowledged))}
        assert expected <= set(things.keys()) <= {*expected, f"small {acknowledged}"}
        assert modal.Queue.from_name("queue", client=client).get_many(9) == ["item"]


def upload(address: str, body: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(address, data=body, method="PUT"), timeout=60).close()


def _put(things: modal.Dict, key: str, value: int) -> bool:
    try:
        things[key] = value
    except modal.exception.ResourceExhaustedError:
        return False
    return True


def test_a_commit_that_does_not_fit_can_be_repeated(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container reads why; what it wrote is in the Volume after the next commit, with what came before."""
    name = f"full-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("TEST_VOLUME", name)
    with running(disk) as client:
        app = Deployed("volume_app", "full-disk-volume", client)
        container = app.call("write_bytes", "first", 1, False)
        disk.fill(but=3 * MEBIBYTE)
        with full():
            app.call("write_bytes", "large", 2 * MEBIBYTE, True)
        volume = modal.Volume.from_name(name, client=client)
        assert "large" not in [entry.path for entry in volume.listdir("/", recursive=True)]
        disk.free()
        assert app.call("write_bytes", "last", 3, True) == container
        assert {path: b"".join(volume.read_file(path)) for path in ("first", "large", "last")} == {
            "first": b"x",
            "large": b"x" * 2 * MEBIBYTE,
            "last": b"xxx",
        }
