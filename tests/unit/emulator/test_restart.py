"""Environments, Secrets, mounts, names and Volumes' uploads: what was built and changed is there for the next one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from grpclib import GRPCError
from modal_proto import api_pb2

from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.services.blobs import Blobs
from modalflow.emulator.services.dicts import Dicts
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.services.mounts import Mounts
from modalflow.emulator.services.secrets import Secrets
from modalflow.emulator.state.registry import EPHEMERAL_LIFETIME
from modalflow.emulator.state.state_dir import StateDir
from tests.support import Clock, killed
from tests.unit.emulator.parts import make_volumes

CREATE = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
EPHEMERAL = api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL
CALLER = Caller(container_id=None, client_version="", idempotency_key=None)


class Services:
    """The services on one state folder, as a control plane joins them."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self.state = StateDir(root)
        journal = self.state.journal
        self.environments = Environments(journal)
        self.secrets = Secrets(self.environments, journal)
        self.dicts = Dicts(self.environments, journal, **({"clock": clock} if clock else {}))
        self.mounts = Mounts(self.state, Blobs(self.state, Addresses(self.state)), self.environments)
        self.volumes = make_volumes(self.state, environments=self.environments)

    async def killed(self, clock: Clock | None = None) -> Services:
        """Return what finds the folder as a kill at this moment leaves it."""
        await self.state.journal.settled()
        copy = killed(self.state.root)
        self.state.close()
        return Services(copy, clock)

    async def environment_names(self) -> list[str]:
        return [item.name for item in (await self.environments.EnvironmentList(Empty(), CALLER)).items]


async def test_environments_and_what_is_in_them(tmp_path: Path) -> None:
    """Renamed ones keep their objects, deleted ones stay gone with theirs, ids are the same."""
    before = Services(tmp_path / "state")
    for name in ("one", "two"):
        await before.environments.EnvironmentCreate(api_pb2.EnvironmentCreateRequest(name=name), CALLER)
        await before.dicts.DictGetOrCreate(
            api_pb2.DictGetOrCreateRequest(deployment_name="d", environment_name=name, object_creation_type=CREATE),
            CALLER,
        )
    await before.environments.EnvironmentUpdate(
        api_pb2.EnvironmentUpdateRequest(current_name="one", name=StringValue(value="uno")), CALLER
    )
    await before.environments.EnvironmentDelete(api_pb2.EnvironmentDeleteRequest(name="two"), CALLER)
    ids = {name: before.environments.get(name).object_id for name in ("main", "uno")}
    after = await before.killed()
    assert sorted(await after.environment_names()) == ["main", "uno"]
    assert {name: after.environments.get(name).object_id for name in ids} == ids
    assert [(d.name, d.environment) for d in after.dicts._dicts.all()] == [("d", "uno")]
    after.state.close()


async def test_secrets(tmp_path: Path) -> None:
    """Values as they were last updated, and those of a Secret without a name that a function holds by its id."""
    before = Services(tmp_path / "state")
    made = [
        await before.secrets.SecretGetOrCreate(
            api_pb2.SecretGetOrCreateRequest(
                deployment_name=name, object_creation_type=mode, env_dict={"A": "1", "B": "2"}
            ),
            CALLER,
        )
        for name, mode in (("s", CREATE), ("", EPHEMERAL))
    ]
    updates = [api_pb2.SecretUpdateRequest.Update(key="A", value="new"), api_pb2.SecretUpdateRequest.Update(key="B")]
    await before.secrets.SecretUpdate(api_pb2.SecretUpdateRequest(secret_id=made[0].secret_id, updates=updates), CALLER)
    after = await before.killed()
    assert [after.secrets.values(secret.secret_id) for secret in made] == [{"A": "new"}, {"A": "1", "B": "2"}]
    after.state.close()


async def test_mounts_and_their_files(tmp_path: Path) -> None:
    """A mount's tree is laid out from the same files; a named one is found in a renamed environment too."""
    before = Services(tmp_path / "state")
    sha256 = before.state.files.put(b"source")
    os.utime(before.state.files.path(sha256), (0, 0))
    await before.environments.EnvironmentCreate(api_pb2.EnvironmentCreateRequest(name="one"), CALLER)
    file = api_pb2.MountFile(filename="/root/app.py", sha256_hex=sha256, mode=0o644)
    named = api_pb2.MountGetOrCreateRequest(
        deployment_name="m", environment_name="one", object_creation_type=CREATE, files=[file]
    )
    made = await before.mounts.MountGetOrCreate(named, CALLER)
    await before.environments.EnvironmentUpdate(
        api_pb2.EnvironmentUpdateRequest(current_name="one", name=StringValue(value="uno")), CALLER
    )
    after = await before.killed()
    lookup = api_pb2.MountGetOrCreateRequest(deployment_name="m", environment_name="uno")
    found = await after.mounts.MountGetOrCreate(lookup, CALLER)
    assert found.mount_id == made.mount_id
    assert found.handle_metadata == made.handle_metadata
    assert (after.mounts.tree([(made.mount_id, "/")]) / "root" / "app.py").read_bytes() == b"source"
    after.state.close()


async def test_an_ephemeral_object_has_time_to_be_heard_of(tmp_path: Path) -> None:
    """Its client could not heartbeat while nobody was there: its time begins anew, and ends without a heartbeat."""
    clock = Clock(1_000_000.0)
    before = Services(tmp_path / "state", clock)
    request = api_pb2.DictGetOrCreateRequest(object_creation_type=EPHEMERAL)
    made = await before.dicts.DictGetOrCreate(request, CALLER)
    clock.now += 10 * EPHEMERAL_LIFETIME
    after = await before.killed(clock)
    clock.now += EPHEMERAL_LIFETIME - 1
    assert after.dicts._dicts.get(made.dict_id)
    clock.now += 2
    with pytest.raises(GRPCError, match="not found"):
        after.dicts._dicts.get(made.dict_id)
    later = await after.killed(clock)
    assert later.dicts._dicts.all() == []
    later.state.close()


async def test_a_commit_writes_what_it_changed(tmp_path: Path) -> None:
    """However large a Volume is, a change of one of its files writes that file's record and no other."""
    services = Services(tmp_path / "state")
    made = await services.volumes.VolumeGetOrCreate(
        api_pb2.VolumeGetOrCreateRequest(deployment_name="v", object_creation_type=CREATE), CALLER
    )
    sha256 = services.state.files.put(b"data")

    async def put(*names: str) -> int:
        connection = services.state.journal._connection
        assert connection is not None
        await services.state.journal.settled()
        before = connection.total_changes
        files = [api_pb2.MountFile(filename=name, sha256_hex=sha256) for name in names]
        request = api_pb2.VolumePutFilesRequest(volume_id=made.volume_id, files=files)
        await services.volumes.VolumePutFiles(request, CALLER)
        await services.state.journal.settled()
        return connection.total_changes - before

    assert await put(*(f"f{n}" for n in range(50))) == 50
    assert await put("f7") == 1
    after = await services.killed()
    tree, _ = after.volumes._find(made.volume_id)
    assert len(tree.nodes()) == 50
    after.state.close()


async def test_blocks_that_no_volume_has_any_more_are_removed(tmp_path: Path) -> None:
    """An old block without a user goes at the start; those in use stay, and can be read."""
    before = Services(tmp_path / "state")
    made = await before.volumes.VolumeGetOrCreate(
        api_pb2.VolumeGetOrCreateRequest(deployment_name="v", object_creation_type=CREATE), CALLER
    )
    for content in (b"used", b"unused"):
        sha256 = before.state.files.put(content)
        request = api_pb2.VolumePutFilesRequest(
            volume_id=made.volume_id, files=[api_pb2.MountFile(filename="f", sha256_hex=sha256)]
        )
        await before.volumes.VolumePutFiles(request, CALLER)
    blocks = before.volumes._blocks
    tree, _ = before.volumes._find(made.volume_id)
    (used,) = tree.find("f").blocks
    for path in (before.state.root / "blocks").rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))
    assert blocks.path(used).read_bytes() == b"unused"
    after = await before.killed()
    left = [path.name for path in (after.state.root / "blocks").rglob("*") if path.is_file()]
    assert left == [used]
    after.state.close()
