"""Home snapshots on a Volume."""

from __future__ import annotations

import json
import time

import pytest

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.store import KEPT, KEPT_FOR, HomeStore, contents_of, current, likeliest, snapshot_of
from modalflow.errors import HomeError
from tests.unit.bundles.memory import MemoryFiles


@pytest.fixture
def files() -> MemoryFiles:
    return MemoryFiles()


def snapshot_id(value: str) -> str:
    return HostHome({"acme": {"value": value}}, contents={"plugins/acme.py": value.encode()}).snapshot("").id


def publish(files: MemoryFiles, value: str, team: str = "") -> str:
    home = HostHome({"acme": {"value": value}}, contents={"plugins/acme.py": value.encode()})
    snapshot = home.snapshot("")
    HomeStore(files).publish(snapshot, home.contents, team)
    return snapshot.id


def test_what_is_published_is_read_again(files: MemoryFiles) -> None:
    """The contents are visible before the snapshot that names them, and the snapshot before the pointer."""
    id = publish(files, "one")
    snapshot = snapshot_of(files, id)
    assert snapshot.settings == {"acme": {"value": "one"}}
    assert contents_of(files, snapshot) == {"plugins/acme.py": b"one"}
    assert [path.split("/")[2] for path in files.written] == ["files", "snapshots", "current", "current"]


def test_each_team_has_its_own_newest_snapshot(files: MemoryFiles) -> None:
    """The executor of a team does not change what containers prepare for the others."""
    everyone, team = publish(files, "everyone"), publish(files, "team", "../all")
    pointers = current(files), current(files, "../all"), current(files, "none")
    assert [pointer and pointer.id for pointer in pointers] == [everyone, team, None]


def test_a_damaged_pointer_is_none(files: MemoryFiles) -> None:
    """A container then starts as without a home; its first workload names the right one."""
    for content in (b"", b"[]", b'{"id": 1}', b'{"id": "../x"}', b"\xff"):
        files.put({"modalflow-homes/v1/current/all": content})
        assert current(files) is None


def test_a_container_prepares_for_executors_without_a_team(files: MemoryFiles) -> None:
    """A team's home is prepared if no other executor has published one for a day."""
    assert likeliest(files) is None
    team = publish(files, "team", "a")
    assert likeliest(files) == team
    everyone = publish(files, "everyone")
    publish(files, "other", "b")
    assert likeliest(files) == everyone
    path = "modalflow-homes/v1/current/all"
    files.put({path: json.dumps(json.loads(files.read(path)) | {"published_at": time.time() - KEPT_FOR - 60}).encode()})
    assert likeliest(files) == snapshot_id("other")


def test_damaged_files_are_an_error_of_modalflow(files: MemoryFiles) -> None:
    """No container writes contents that the scheduler did not publish."""
    snapshot = snapshot_of(files, publish(files, "one"))
    files.put({f"modalflow-homes/v1/files/{snapshot.files.version}": b"two"})
    with pytest.raises(HomeError, match="damaged"):
        contents_of(files, snapshot)


def test_old_snapshots_are_removed_with_their_files(files: MemoryFiles) -> None:
    """The newest are kept, and so is every one of the last day, because running executors still name them."""
    ids = []
    for number in range(KEPT + 2):
        ids.append(publish(files, str(number)))
        files.age(1)
    assert HomeStore(files).prune() == 0
    files.age(KEPT_FOR)
    publish(files, "0")
    assert HomeStore(files).prune() == 2
    for id in ids[1:3]:
        with pytest.raises(FileNotFoundError):
            snapshot_of(files, id)
    for id in (ids[0], *ids[3:]):
        assert contents_of(files, snapshot_of(files, id))
    assert len(files.list("modalflow-homes/v1/files")) == KEPT


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"id":"' + b"a" * 64 + b'","published_at":' + b"1" * 400 + b"}"])
def test_a_pointer_that_a_task_has_overwritten_costs_no_container(files: MemoryFiles, text: bytes) -> None:
    """Any task can write to the Volume: JSON that is too deep, and numbers that are too large, are no pointer."""
    publish(files, "one")
    files.put({f"modalflow-homes/v1/current/{name}": text for name in ("all", "any")})
    assert current(files) is None and likeliest(files) is None
