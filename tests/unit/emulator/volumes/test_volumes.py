"""Volumes as containers see them: views, commits, reloads, with real files and no container."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from modal_proto import api_pb2

from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.state.state_dir import StateDir
from modalflow.emulator.volumes import block_store
from modalflow.emulator.volumes.tree import Node, NodeKind
from modalflow.emulator.volumes.views.view import CopiedView, Signature
from tests.support import killed
from tests.unit.emulator.parts import NoMounts, make_volumes


def inside(container_id: str) -> Caller:
    return Caller(container_id=container_id, client_version="", idempotency_key=None)


class Volume:
    """One volume of a Volumes service, with short names for what a container does."""

    def __init__(self, root: Path, volume_id: str = "") -> None:
        self.state = StateDir(root)
        self.mounts = NoMounts()
        self.volumes = make_volumes(self.state, self.mounts)
        self.id = volume_id

    async def create(self) -> Volume:
        request = api_pb2.VolumeGetOrCreateRequest(object_creation_type=api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL)
        self.id = (await self.volumes.VolumeGetOrCreate(request, inside(""))).volume_id
        return self

    async def attach(self, container_id: str) -> Path:
        view = await self.volumes.attach(self.id, container_id, background_commits=False)
        assert isinstance(view, CopiedView)
        return view.root

    async def detach(self, container_id: str) -> None:
        await self.volumes.detach(self.id, container_id)

    async def commit(self, container_id: str) -> None:
        await self.volumes.VolumeCommit(api_pb2.VolumeCommitRequest(volume_id=self.id), inside(container_id))

    async def reload(self, container_id: str) -> None:
        await self.volumes.VolumeReload(api_pb2.VolumeReloadRequest(volume_id=self.id), inside(container_id))

    def committed(self) -> dict[str, bytes | None]:
        """What a reader outside sees now: path → content, None for a directory."""
        tree, _ = self.volumes._find(self.id)
        return {
            path: None if node.kind is NodeKind.DIRECTORY else self._content(node)
            for path, node in tree.nodes().items()
        }

    def _content(self, node: Node) -> bytes:
        with tempfile.NamedTemporaryFile() as file:
            self.volumes._blocks.write_file(node.blocks, node.size, Path(file.name))
            return Path(file.name).read_bytes()


def on_disk(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    """An empty volume."""
    volume = await Volume(tmp_path).create()
    yield volume
    volume.state.close()


async def test_a_commit_is_seen_outside_at_once_and_inside_after_a_reload(volume: Volume) -> None:
    """Readers see each commit; another container sees it after its reload and not before."""
    writer, reader = await volume.attach("writer"), await volume.attach("reader")
    (writer / "a").mkdir()
    (writer / "a" / "file").write_text("1")
    assert volume.committed() == {}
    await volume.commit("writer")
    assert volume.committed() == {"a": None, "a/file": b"1"}
    assert on_disk(reader) == {}
    await volume.reload("reader")
    assert on_disk(reader) == {"a": None, "a/file": b"1"}


async def test_each_commit_of_a_growing_file_is_seen(volume: Volume) -> None:
    """A log that is appended to between commits, however quickly, is complete after each of them."""
    root = await volume.attach("c")
    with (root / "log").open("ab", buffering=0) as log:
        for n in range(20):
            log.write(b"%d\n" % n)
            await volume.commit("c")
            assert volume.committed()["log"] == b"".join(b"%d\n" % m for m in range(n + 1))


async def test_a_change_within_the_same_tick_is_not_missed(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where file times tick slowly, a file rewritten with the same size right after a commit is committed as well."""

    def coarse(status: os.stat_result) -> Signature:
        return Signature(status.st_ino, status.st_size, status.st_mtime_ns // 20_000_000, 0)

    monkeypatch.setattr(Signature, "of", coarse)
    file = await volume.attach("c") / "file"
    for n in range(30):
        with file.open("r+b" if n else "wb") as opened:
            opened.write(b"%02d" % n)
        await volume.commit("c")
        assert volume.committed() == {"file": b"%02d" % n}


async def test_the_last_commit_of_a_file_wins_and_other_files_stay(volume: Volume) -> None:
    """Containers that write different files keep each other's; on the same file the last commit counts."""
    one, two = await volume.attach("one"), await volume.attach("two")
    (one / "same").write_text("one")
    (one / "ones").write_text("1")
    (two / "same").write_text("two")
    (two / "twos").write_text("2")
    await volume.commit("two")
    await volume.commit("one")
    assert volume.committed() == {"same": b"one", "ones": b"1", "twos": b"2"}
    await volume.reload("two")
    assert on_disk(two) == {"same": b"one", "ones": b"1", "twos": b"2"}


async def test_deletions_are_committed(volume: Volume) -> None:
    """A removed file or directory is gone after the commit, also for others after their reload."""
    one = await volume.attach("one")
    (one / "a" / "b").mkdir(parents=True)
    (one / "a" / "b" / "file").write_text("1")
    (one / "top").write_text("2")
    await volume.commit("one")
    two = await volume.attach("two")
    assert on_disk(two) == {"a": None, "a/b": None, "a/b/file": b"1", "top": b"2"}
    shutil.rmtree(one / "a")
    await volume.commit("one")
    await volume.reload("two")
    assert volume.committed() == on_disk(two) == {"top": b"2"}


async def test_a_directory_is_not_deleted_under_what_another_put_there(volume: Volume) -> None:
    """Removing a directory removes what the container saw in it, not what somebody else committed meanwhile."""
    one = await volume.attach("one")
    (one / "a").mkdir()
    (one / "a" / "old").write_text("1")
    await volume.commit("one")
    two = await volume.attach("two")
    (two / "a" / "new").write_text("2")
    await volume.commit("two")
    shutil.rmtree(one / "a")
    await volume.commit("one")
    assert volume.committed() == {"a": None, "a/new": b"2"}


async def test_a_file_and_a_directory_take_each_others_place(volume: Volume) -> None:
    """A path may turn from a file into a directory and back."""
    one, two = await volume.attach("one"), await volume.attach("two")
    (one / "x").write_text("file")
    await volume.commit("one")
    await volume.reload("two")
    (two / "x").unlink()
    (two / "x").mkdir()
    (two / "x" / "y").write_text("below")
    await volume.commit("two")
    await volume.reload("one")
    assert volume.committed() == on_disk(one) == {"x": None, "x/y": b"below"}
    shutil.rmtree(one / "x")
    (one / "x").write_text("again")
    await volume.commit("one")
    await volume.reload("two")
    assert volume.committed() == on_disk(two) == {"x": b"again"}


async def test_modes_times_and_links_are_kept(volume: Volume) -> None:
    """What another container gets has the same mode, time and links; a changed mode alone is a change."""
    one = await volume.attach("one")
    script = one / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.utime(script, ns=(10**18, 10**18))
    (one / "link").symlink_to("script")
    await volume.commit("one")
    two = await volume.attach("two")
    assert (two / "script").stat().st_mode & 0o777 == 0o755
    assert (two / "script").stat().st_mtime_ns == 10**18
    assert (two / "link").readlink() == Path("script")
    script.chmod(0o600)
    await volume.commit("one")
    await volume.reload("two")
    assert (two / "script").stat().st_mode & 0o777 == 0o600


async def test_detaching_commits_and_removes_the_view(volume: Volume) -> None:
    """What a container left uncommitted is committed when it ended; its directory goes, and twice is harmless."""
    root = await volume.attach("c")
    (root / "file").write_text("1")
    await volume.detach("c")
    await volume.detach("c")
    assert volume.committed() == {"file": b"1"}
    assert not root.exists()


async def test_one_view_per_container(volume: Volume) -> None:
    """A container that mounts the volume twice has one view of it."""
    assert await volume.attach("c") == await volume.attach("c")
    assert await volume.attach("c") != await volume.attach("d")


async def test_what_is_uncommitted_is_committed_by_a_reload(volume: Volume) -> None:
    """A reload loses nothing that the container wrote."""
    one, two = await volume.attach("one"), await volume.attach("two")
    (one / "ones").write_text("1")
    await volume.commit("one")
    (two / "twos").write_text("2")
    await volume.reload("two")
    assert volume.committed() == on_disk(two) == {"ones": b"1", "twos": b"2"}


async def test_a_reload_fails_while_a_file_is_open(volume: Volume) -> None:
    """With a file of the volume open, a reload is refused in the words that the SDK looks for; a commit is not."""
    root = await volume.attach("c")
    (root / "file").write_text("1")
    volume.mounts.open = [str(path) for path in Path("/proc/self/fd").iterdir()]
    with (root / "file").open():
        with pytest.raises(GRPCError, match="there are open files preventing the operation") as refused:
            await volume.reload("c")
        assert refused.value.status is Status.FAILED_PRECONDITION
        await volume.commit("c")
    await volume.reload("c")


async def test_a_deleted_volume_lets_its_containers_end(volume: Volume) -> None:
    """A container outlives its volume: its commit fails, its end does not."""
    root = await volume.attach("c")
    (root / "file").write_text("1")
    await volume.volumes.VolumeDelete(api_pb2.VolumeDeleteRequest(volume_id=volume.id), inside(""))
    with pytest.raises(GRPCError):
        await volume.commit("c")
    await volume.detach("c")
    assert not root.exists()


async def test_what_a_container_writes_is_committed_without_its_asking(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Background commits come every few seconds, and stop with the container."""
    monkeypatch.setattr("modalflow.emulator.volumes.volumes.BACKGROUND_COMMIT_SECONDS", 0.01)
    view = await volume.volumes.attach(volume.id, "c")
    assert isinstance(view, CopiedView)
    (view.root / "file").write_text("1")
    async with asyncio.timeout(5):
        while volume.committed() != {"file": b"1"}:
            await asyncio.sleep(0.005)
    await volume.detach("c")
    async with asyncio.timeout(5):
        while any("_keep_committing" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0)


async def test_a_file_of_several_blocks_comes_back_whole(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are put together in order; a file that grows keeps the blocks it had."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 4)
    one = await volume.attach("one")
    (one / "file").write_bytes(b"0123456789")
    await volume.commit("one")
    tree, _ = volume.volumes._find(volume.id)
    before = tree.find("file").blocks
    with (one / "file").open("ab") as file:
        file.write(b"abc")
    await volume.commit("one")
    after = tree.find("file").blocks
    assert len(before) == 3 and len(after) == 4 and after[:2] == before[:2]
    assert on_disk(await volume.attach("two")) == {"file": b"0123456789abc"}


async def test_earlier_content_goes_when_nothing_changes_any_more(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file grew with each commit: what it was is removed after a while, without another commit or upload."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 100)
    monkeypatch.setattr(block_store, "UNUSED_SECONDS", 0.0)
    one = await volume.attach("one")
    for _ in range(5):
        with (one / "log").open("ab") as file:
            file.write(os.urandom(250))
        await volume.commit("one")
    volume.volumes.remove_unused()
    volume.volumes.remove_unused()
    kept = [path for path in (volume.state.root / "blocks").rglob("*") if path.is_file() and not path.suffix]
    # The first commit's last block, which was not full, goes with the file that the others are in.
    assert 5 * 250 <= sum(path.stat().st_size for path in kept) <= 5 * 250 + 100


async def test_what_is_mounted_inside_a_copy_is_no_part_of_it(volume: Volume) -> None:
    """Where another volume is mounted, neither that nor a folder that leads to it is committed, and what the volume
    has there is hidden and kept."""
    one = await volume.attach("one")
    (one / "hidden").mkdir()
    (one / "hidden" / "file").write_text("1")
    await volume.commit("one")
    view = await volume.volumes.attach(volume.id, "two", background_commits=False, points=["a/b/cache", "hidden"])
    (view.root / "a" / "b").mkdir(parents=True)
    (view.root / "a" / "b" / "cache").symlink_to("/elsewhere")
    (view.root / "hidden").symlink_to("/elsewhere")
    await volume.commit("two")
    assert volume.committed() == {"hidden": None, "hidden/file": b"1"}
    (view.root / "a" / "file").write_text("2")
    await volume.reload("two")
    assert volume.committed() == {"hidden": None, "hidden/file": b"1", "a": None, "a/file": b"2"}


PATHS = st.sampled_from(["a", "b", "d/a", "d/b"])
WHO = st.sampled_from(["one", "two"])


class VolumeMachine(RuleBasedStateMachine):
    """Two containers and a volume against three dictionaries: merges are per file, the last commit wins.

    A kill leaves what was committed, and containers begin anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.root = Path(self.folder.name, "first")
        self.volume = self.loop.run_until_complete(Volume(self.root).create())
        self._attach()
        self.truth: dict[str, bytes] = {}
        self.seen: dict[str, dict[str, bytes]] = {"one": {}, "two": {}}
        self.base: dict[str, dict[str, bytes]] = {"one": {}, "two": {}}

    def teardown(self) -> None:
        for who in self.roots:
            self.loop.run_until_complete(self.volume.detach(who))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.volume.state.close()
        self.folder.cleanup()

    def _attach(self) -> None:
        self.roots = {who: self.loop.run_until_complete(self.volume.attach(who)) for who in ("one", "two")}

    @rule()
    def kill(self) -> None:
        before, self.root = self.volume, killed(self.root)
        self.volume = Volume(self.root, before.id)
        before.state.close()
        assert _files(self.volume.committed()) == self.truth
        self._attach()
        for who in ("one", "two"):
            self.seen[who], self.base[who] = dict(self.truth), dict(self.truth)

    @rule(who=WHO, path=PATHS, content=st.binary(max_size=2))
    def write(self, who: str, path: str, content: bytes) -> None:
        # Written again, the same content counts as a change only if the file's time differs: the model has no times.
        if self.seen[who].get(path) == content:
            return
        target = self.roots[who] / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        self.seen[who][path] = content

    @rule(who=WHO, path=PATHS)
    def delete(self, who: str, path: str) -> None:
        (self.roots[who] / path).unlink(missing_ok=True)
        self.seen[who].pop(path, None)

    @rule(who=WHO)
    def commit(self, who: str) -> None:
        self.loop.run_until_complete(self.volume.commit(who))
        self._merge(who)

    @rule(who=WHO)
    def reload(self, who: str) -> None:
        self.loop.run_until_complete(self.volume.reload(who))
        self._merge(who)
        self.seen[who], self.base[who] = dict(self.truth), dict(self.truth)
        assert _files(on_disk(self.roots[who])) == self.truth

    def _merge(self, who: str) -> None:
        seen, base = self.seen[who], self.base[who]
        for path in seen.keys() | base.keys():
            if seen.get(path) == base.get(path):
                continue
            if path in seen:
                self.truth[path] = seen[path]
            else:
                self.truth.pop(path, None)
        self.base[who] = dict(seen)
        assert _files(self.volume.committed()) == self.truth


def _files(tree: dict[str, bytes | None]) -> dict[str, bytes]:
    return {path: content for path, content in tree.items() if content is not None}


TestVolume = VolumeMachine.TestCase
TestVolume.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
