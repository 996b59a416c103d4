"""The Airflow homes of a container: fetched once, checked, and complete or not there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from modal import exception

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.sealing import KeyPair, salt_of
from modalflow.airflow_home.store import HomeStore
from modalflow.errors import HomeError
from modalflow.worker.airflow_home import airflow_homes
from modalflow.worker.airflow_home.airflow_homes import AirflowHomes
from tests.unit.bundles.memory import MemoryFiles


class Volume(MemoryFiles):
    """A Volume that counts how often it is read, and fails as often as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.failures: list[Exception] = []

    def read(self, path: str) -> bytes:
        self.reads += 1
        if self.failures:
            raise self.failures.pop()
        return super().read(path)


@pytest.fixture(scope="module")
def keys() -> KeyPair:
    return KeyPair.new()


@pytest.fixture
def mounted() -> Volume:
    return Volume()


@pytest.fixture
def remote() -> Volume:
    return Volume()


@pytest.fixture
def homes(tmp_path: Path, mounted: Volume, remote: Volume, keys: KeyPair) -> AirflowHomes:
    return AirflowHomes(tmp_path / "homes", mounted, remote, keys.private)


def publish(keys: KeyPair, *volumes: Volume) -> str:
    home = HostHome(
        {"core": {"a": "1"}}, {"smtp": {"smtp_password": "hunter2"}}, {"plugins/a.py": b"A = 1"}, salt=salt_of("s")
    )
    snapshot = home.snapshot(keys.public)
    for volume in volumes:
        HomeStore(volume).publish(snapshot, home.contents)
    return snapshot.id


async def test_a_home_is_read_from_the_mount_once(
    homes: AirflowHomes, mounted: Volume, remote: Volume, keys: KeyPair
) -> None:
    """The next tasks cost nothing, and none of them costs an RPC."""
    id = publish(keys, mounted, remote)
    first = await homes.home_for(id)
    reads = mounted.reads
    assert first is not None and await homes.home_for(id) is first
    assert (mounted.reads, remote.reads) == (reads, 0)
    file = Path(first.folder, "airflow.cfg")
    assert "smtp_password = hunter2" in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Path(first.folder, "plugins/a.py").read_text() == "A = 1"


async def test_a_container_that_is_older_asks_modal(homes: AirflowHomes, remote: Volume, keys: KeyPair) -> None:
    """Its mount shows the Volume as it was when the container started."""
    assert await homes.home_for(publish(keys, remote)) is not None


async def test_a_damaged_mount_is_no_reason_to_fail(
    homes: AirflowHomes, mounted: Volume, remote: Volume, keys: KeyPair
) -> None:
    """What the scheduler has published counts, wherever it can be read."""
    id = publish(keys, mounted, remote)
    mounted.put({f"modalflow-homes/v1/snapshots/{id}": b"damaged"})
    assert await homes.home_for(id) is not None


async def test_a_modal_that_does_not_answer_is_asked_again(
    homes: AirflowHomes, remote: Volume, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short failure costs seconds, a long one the task, with the reason."""
    monkeypatch.setattr(airflow_homes, "_PAUSE", 0.01)
    id = publish(keys, remote)
    remote.failures = [exception.ConnectionError("no network")] * 4
    with pytest.raises(HomeError, match="no network"):
        await homes.home_for(id)
    remote.failures = [exception.ConnectionError("no network")] * 3
    assert await homes.home_for(id) is not None


async def test_a_full_disk_leaves_nothing_half_written(
    homes: AirflowHomes, remote: Volume, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next task finds no folder, and makes it."""
    id = publish(keys, remote)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(HomeError, match="No space left"):
            await homes.home_for(id)
    assert list((tmp_path / "homes").iterdir()) == []
    assert await homes.home_for(id) is not None


async def test_a_container_without_the_key_gets_no_part_of_it(tmp_path: Path, remote: Volume, keys: KeyPair) -> None:
    """A task must not run with a part of its settings."""
    homes = AirflowHomes(tmp_path / "homes", Volume(), remote, "")
    with pytest.raises(HomeError, match="no key"):
        await homes.home_for(publish(keys, remote))


def test_before_the_first_workload_nothing_is_asked_and_nothing_raised(
    homes: AirflowHomes, mounted: Volume, remote: Volume, keys: KeyPair
) -> None:
    """A container that finds nothing on the mount starts as without a home."""
    publish(keys, remote)
    assert homes.newest() is None and remote.reads == 0
    id = publish(keys, mounted)
    newest = homes.newest()
    assert newest is not None and newest.folder.endswith(id)
    mounted.put({f"modalflow-homes/v1/snapshots/{id}": b"damaged"})
    assert AirflowHomes(Path(newest.folder).parent / "x", mounted, remote, "").newest() is None
    assert remote.reads == 0
