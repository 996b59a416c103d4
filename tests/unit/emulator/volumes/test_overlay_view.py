"""Volumes as overlay mounts, in rooms like a container's: whatever a container does to its files, a commit says it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from modal_proto import api_pb2

from modalflow.emulator.processes.container_spec import Isolation, VolumeView
from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.state.state_dir import StateDir
from modalflow.emulator.volumes import block_store
from modalflow.emulator.volumes.tree import NodeKind
from modalflow.emulator.volumes.views import overlay_view, view
from modalflow.emulator.volumes.views.overlay_view import OverlayView
from tests.contract.isolated import problem_with
from tests.support import Clock, wait_until
from tests.unit.emulator.parts import make_volumes
from tests.unit.emulator.volumes.mounting import Rooms, mounted

T = TypeVar("T")

Entry = tuple[str, int, int, bytes]
"""Kind, mode, time, content or target."""


class World:
    """One volume, and rooms that mount it."""

    def __init__(self, root: Path, isolation: Isolation) -> None:
        self.rooms = Rooms(isolation)
        self.state = StateDir(root)
        self.volumes = make_volumes(self.state, self.rooms)
        self.id = ""

    async def start(self) -> World:
        await self.rooms.start()
        request = api_pb2.VolumeGetOrCreateRequest(object_creation_type=api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL)
        self.id = (await self.volumes.VolumeGetOrCreate(request, inside(""))).volume_id
        return self

    async def enter(self, container_id: str, *, read_only: bool = False) -> Path:
        """Start a container; return its volume."""
        view = await self.volumes.attach(self.id, container_id, background_commits=False)
        assert isinstance(view, OverlayView)
        seen = VolumeView(self.id, view.root, "/data", "", read_only, tuple(view.layers))
        return mounted(await self.rooms.enter(container_id, seen), self.id)

    async def leave(self, container_id: str) -> None:
        await self.rooms.leave(container_id)
        await self.volumes.detach(self.id, container_id)

    async def commit(self, container_id: str) -> None:
        await self.volumes.VolumeCommit(api_pb2.VolumeCommitRequest(volume_id=self.id), inside(container_id))

    async def reload(self, container_id: str) -> None:
        await self.volumes.VolumeReload(api_pb2.VolumeReloadRequest(volume_id=self.id), inside(container_id))

    async def close(self) -> None:
        await self.rooms.close()
        for _, container_id in list(self.volumes._attached):
            await self.volumes.detach(self.id, container_id)
        await self.volumes.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        self.state.close()

    def committed(self) -> dict[str, Entry]:
        """What a reader outside sees now."""
        tree, _ = self.volumes._find(self.id)
        found: dict[str, Entry] = {}
        for path, node in tree.nodes().items():
            content = node.target.encode()
            if node.kind is NodeKind.FILE:
                with tempfile.NamedTemporaryFile() as file:
                    self.volumes._blocks.write_file(node.blocks, node.size, Path(file.name))
                    content = Path(file.name).read_bytes()
            mode = 0 if node.kind is NodeKind.LINK else node.mode
            found[path] = (node.kind.value, mode, node.mtime_ns, content)
        return found


def seen(root: Path) -> dict[str, Entry]:
    """What a container sees."""
    found: dict[str, Entry] = {}
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                entry = ("link", 0, status.st_mtime_ns, os.fsencode(path.readlink()))
            elif stat.S_ISDIR(status.st_mode):
                entry = ("directory", stat.S_IMODE(status.st_mode), status.st_mtime_ns, b"")
            else:
                entry = ("file", stat.S_IMODE(status.st_mode), status.st_mtime_ns, path.read_bytes())
            found[str(path.relative_to(root))] = entry
    return found


def inside(container_id: str) -> Caller:
    return Caller(container_id=container_id, client_version="", idempotency_key=None)


KINDS = [Isolation.ROOT, Isolation.USER]


@pytest.fixture(scope="module", params=KINDS, ids=[kind.value for kind in KINDS])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    kind: Isolation = request.param
    if problem := problem_with(kind):
        pytest.skip(f"containers cannot be kept apart by {kind.value} here: {problem}")
    return kind


@pytest.fixture
async def world(tmp_path: Path, isolation: Isolation) -> AsyncIterator[World]:
    """An empty volume, and a template that makes rooms."""
    made = await World(tmp_path, isolation).start()
    yield made
    await made.close()


async def test_what_a_container_does_is_committed_and_seen_by_the_next(world: World) -> None:
    """Files, folders, links, modes, times, deletions: the volume and the next container have what one sees."""
    one = await world.enter("one")
    (one / "a" / "b").mkdir(parents=True)
    (one / "a" / "b" / "file").write_text("1")
    (one / "a" / "other").write_text("2")
    (one / "link").symlink_to("a/other")
    os.utime(one / "a" / "other", ns=(10**18, 10**18))
    (one / "a" / "b").chmod(0o700)
    await world.commit("one")
    assert world.committed() == seen(one)
    two = await world.enter("two")
    assert seen(two) == seen(one)
    (two / "a" / "other").chmod(0o600)
    os.utime(two / "a" / "b", ns=(11**17, 11**17))
    (two / "a" / "b" / "file").unlink()
    (two / "link").unlink()
    await world.commit("two")
    assert world.committed() == seen(two)
    await world.reload("one")
    assert seen(one) == seen(two)
    assert seen(await world.enter("three")) == seen(two)


async def test_a_folder_that_was_there_is_removed_and_made_anew(world: World) -> None:
    """Nothing of the removed folder comes back, in the volume, in the next container or after layers were merged."""
    one = await world.enter("one")
    (one / "a").mkdir()
    (one / "a" / "old").write_text("1")
    await world.leave("one")
    two = await world.enter("two")
    shutil.rmtree(two / "a")
    (two / "a").mkdir()
    (two / "a" / "new").write_text("2")
    await world.commit("two")
    assert set(world.committed()) == {"a", "a/new"}
    assert seen(await world.enter("three")) == seen(two)


async def test_a_folder_that_was_there_is_renamed(world: World) -> None:
    """Where the kernel can do it, what is in a renamed folder moves along, unread; elsewhere shutil.move copies it."""
    one = await world.enter("one")
    (one / "a" / "b").mkdir(parents=True)
    (one / "a" / "b" / "file").write_text("1")
    (one / "a" / "gone").write_text("2")
    await world.leave("one")
    two = await world.enter("two")
    shutil.move(two / "a", two / "moved")
    (two / "moved" / "b" / "new").write_text("3")
    (two / "moved" / "gone").unlink()
    (two / "moved" / "b").chmod(0o711)
    await world.commit("two")
    assert set(world.committed()) == {"moved", "moved/b", "moved/b/file", "moved/b/new"}
    assert world.committed() == seen(two)
    shutil.move(two / "moved" / "b", two / "b")
    await world.commit("two")
    assert set(world.committed()) == {"moved", "b", "b/file", "b/new"}
    assert seen(await world.enter("three")) == seen(two) == world.committed()


@pytest.mark.parametrize("meanwhile", ["nothing", "a file", "a folder", "its parent moves"])
async def test_a_folder_that_was_renamed_comes_back(world: World, meanwhile: str) -> None:
    """All of what it held is there again, whatever stood at its path while it was away, and stays there."""
    one = await world.enter("one")
    (one / "top" / "a" / "b").mkdir(parents=True)
    (one / "top" / "a" / "b" / "file").write_text("1")
    (one / "top" / "a" / "other").write_text("2")
    await world.leave("one")
    two = await world.enter("two")
    home = two / "top" / "a"
    shutil.move(home, two / "away")
    if meanwhile == "a file":
        home.touch()
    elif meanwhile == "a folder":
        home.mkdir()
    elif meanwhile == "its parent moves":
        shutil.move(two / "top", two / "elsewhere")
    await world.commit("two")
    assert world.committed() == seen(two)
    if meanwhile == "a file":
        home.unlink()
    elif meanwhile == "a folder":
        home.rmdir()
    elif meanwhile == "its parent moves":
        shutil.move(two / "elsewhere", two / "top")
    shutil.move(two / "away", home)
    (home / "b" / "new").write_text("3")
    await world.commit("two")
    assert world.committed() == seen(two)
    (home / "b" / "file").unlink()
    (home / "newer").write_text("4")
    await world.commit("two")
    assert world.committed() == seen(two)
    assert set(world.committed()) == {"top", "top/a", "top/a/b", "top/a/b/new", "top/a/other", "top/a/newer"}
    assert seen(await world.enter("three")) == seen(two)


async def test_a_volume_that_is_only_read_is_reloaded(world: World) -> None:
    """What others commit is brought into a read-only mount, which its container cannot write to before or after."""
    one, two = await world.enter("one"), await world.enter("two", read_only=True)
    (one / "file").write_text("1")
    await world.commit("one")
    await world.reload("two")
    assert (two / "file").read_text() == "1"
    for path in (two / "file", two / "new"):
        with pytest.raises(OSError, match="Read-only"):
            path.write_text("2")


async def test_a_reload_writes_into_the_volume_whatever_stands_at_its_path(world: World, tmp_path: Path) -> None:
    """A container that puts a symlink where its Volume was leads the control plane nowhere."""
    one, two = await world.enter("one"), await world.enter("two")
    (one / "file").write_text("1")
    await world.commit("one")
    outside = tmp_path / "outside"
    outside.mkdir()
    root = two.parents[2]
    (root / "__modal").rename(root / "moved")
    (root / "__modal" / "volumes").mkdir(parents=True)
    (root / "__modal" / "volumes" / world.id).symlink_to(outside)
    await world.reload("two")
    assert list(outside.iterdir()) == []
    assert (root / "moved" / "volumes" / world.id / "file").read_text() == "1"


async def test_a_reload_writes_through_no_symlink_of_a_container(world: World, tmp_path: Path) -> None:
    """Neither at the name of what is being written, nor at a directory's that was swapped since the commit."""
    one, two = await world.enter("one"), await world.enter("two")
    for folder in ("", "folder"):
        (one / folder).mkdir(exist_ok=True)
        (one / folder / "file").write_text("1")
    await world.commit("one")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target").write_text("untouched")
    (two / overlay_view._STAGED).symlink_to(outside / "target")
    await world.reload("two")
    assert (two / "file").read_text() == (two / "folder" / "file").read_text() == "1"
    (one / "folder" / "file").write_text("2")
    await world.commit("one")
    attached = world.volumes._attached[world.id, "two"].view
    wanted = attached.updates()
    (two / "folder").rename(two / "moved")
    (two / "folder").symlink_to(outside)
    with pytest.raises(OSError, match="folder"):
        attached.update(wanted, world.rooms.mounted_at("two", world.id), {})
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("target", "untouched")]


async def test_what_a_failed_reload_brought_in_is_not_committed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full half-way, later commits of others are not undone by the container's next commit."""
    one = await world.enter("one")
    (one / "a").write_text("1")
    (one / "gone").write_text("1")
    await world.commit("one")
    two = await world.enter("two")
    (one / "a").write_text("2")
    (one / "b").write_text("2")
    (one / "gone").unlink()
    await world.commit("one")
    original = view.put

    def put(kept: Any, node: Any, root: Path, path: str, staged: str) -> None:
        if path == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(kept, node, root, path, staged)

    with monkeypatch.context() as full:
        full.setattr(overlay_view, "put", put)
        with pytest.raises(OSError, match="No space"):
            await world.reload("two")
    assert (two / "a").read_text() == "2"
    for name in ("a", "gone"):
        (one / name).write_text("3")
    await world.commit("one")
    await world.commit("two")
    assert [world.committed()[name][3] for name in ("a", "b", "gone")] == [b"3", b"2", b"3"]
    await world.reload("two")
    assert seen(two) == world.committed()


async def test_attributes_that_look_like_the_kernels_mean_nothing(world: World) -> None:
    """A container may give its files attributes with the names of overlayfs: its files are what they are."""
    one = await world.enter("one")
    (one / "folder").mkdir()
    (one / "folder" / "file").write_text("1")
    await world.leave("one")
    two = await world.enter("two")
    for path, name in ((two / "folder", "opaque"), (two / "folder" / "file", "metacopy")):
        with contextlib.suppress(OSError):
            os.setxattr(path, f"user.overlay.{name}", b"y")
    (two / "folder" / "file").write_text("2")
    await world.commit("two")
    assert world.committed()["folder/file"][3] == b"2"


async def test_a_path_that_no_volume_can_keep_costs_no_other_file(world: World) -> None:
    """Folders in folders, each made from within the last, are left out where the path is too long; all others are
    committed, and what is left out is removed with its container."""
    one = await world.enter("one")
    (one / "before").write_text("1")
    (one / "within").mkdir()
    folder = os.open(one / "within", os.O_DIRECTORY)
    for _ in range(60):
        os.mkdir("e" * 100, dir_fd=folder)
        inner = os.open("e" * 100, os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    (one / "zzz").write_text("2")
    await world.commit("one")
    found = world.committed()
    assert {"before", "zzz", "within"} < set(found)
    assert 3_300 < max(map(len, found)) <= 3_500
    await world.leave("one")
    await asyncio.to_thread(wait_until, lambda: not any((world.state.root / "trash").iterdir()))


async def test_what_gives_way_to_a_pipe_is_gone(world: World) -> None:
    """Volumes keep no pipes: where one replaces a file or a folder, nothing is left of either."""
    one = await world.enter("one")
    (one / "file").write_text("1")
    (one / "folder").mkdir()
    (one / "folder" / "file").write_text("2")
    await world.leave("one")
    two = await world.enter("two")
    (two / "file").unlink()
    shutil.rmtree(two / "folder")
    for name in ("file", "folder"):
        os.mkfifo(two / name)
    await world.commit("two")
    assert world.committed() == {}


async def test_a_sparse_file_stays_sparse(world: World) -> None:
    """A file of 3 GiB of holes takes no room in its container, in the volume or in the next container."""
    size = 3 * 2**30
    one = await world.enter("one")
    with (one / "sparse").open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"x")
    await world.commit("one")
    two = await world.enter("two")
    status = (two / "sparse").stat()
    assert (status.st_size, status.st_blocks * 512 < 2**24) == (size, True)
    with (two / "sparse").open("rb") as file:
        file.seek(size // 2)
        assert file.read(2) == b"x\0"
    used = sum(path.stat().st_blocks * 512 for path in world.state.root.rglob("*") if path.is_file())
    assert used < 2**25


async def test_content_is_on_disk_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred containers later, a volume's files take the room that they took when they were committed."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 100_000)
    one = await world.enter("one")
    (one / "large").write_bytes(os.urandom(1_000_000))
    (one / "small").write_bytes(os.urandom(50_000))
    await world.leave("one")
    for name in ("two", "three", "four"):
        await world.enter(name)
    found = {status.st_ino: status.st_size for status in map(Path.lstat, world.state.root.glob("*/**/*"))}
    assert sum(size for size in found.values() if size >= 50_000) == 1_050_000


async def test_of_a_growing_file_the_rest_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A background commit of an open file that grew reads what was added; what was changed before it comes with the
    commit that the container asks for."""
    for module in (block_store, overlay_view):
        monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    one = await world.enter("one")
    with (one / "log").open("w+b", buffering=0) as file:
        file.write(b"a" * 950)
        await world.commit("one")
        file.seek(300)
        file.write(b"b")
        file.seek(0, os.SEEK_END)
        file.write(b"c" * 100)
        await world.volumes._commit(world.id, "one", growing={"log"})
        assert world.committed()["log"][3] == b"a" * 950 + b"c" * 100
        await world.commit("one")
        assert world.committed()["log"][3] == b"a" * 300 + b"b" + b"a" * 649 + b"c" * 100


@pytest.mark.parametrize("grown", [0, 100], ids=["same size", "longer"])
async def test_a_database_that_stays_open_is_committed_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch, grown: int
) -> None:
    """A background commit of an open file reads all of it if its size is the same or its beginning is another: readers
    get no mixture of old and new pages."""
    for module in (block_store, overlay_view):
        monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    one = await world.enter("one")
    with (one / "base.db").open("w+b", buffering=0) as file:
        file.write(b"a" * 950)
        await world.volumes._commit(world.id, "one", growing={"base.db"})
        for offset, content in ((0, b"1"), (500, b"2"), (950, b"c" * grown)):
            file.seek(offset)
            file.write(content)
        await world.volumes._commit(world.id, "one", growing={"base.db"})
        found = world.committed()["base.db"][3]
        assert found == b"1" + b"a" * 499 + b"2" + b"a" * 449 + b"c" * grown


async def test_a_reload_that_fails_leaves_nothing_half_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full in the middle of a file, its part is not left in the Volume, and the next reload succeeds."""
    one, two = await world.enter("one"), await world.enter("two")
    (one / "file").write_text("1" * 100)
    await world.commit("one")

    def write_a_part(_blocks: object, _size: int, descriptor: int) -> None:
        os.write(descriptor, b"1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(world.volumes._blocks, "write_to", write_a_part)
        with pytest.raises(OSError, match="No space"):
            await world.reload("two")
    await world.commit("two")
    assert set(world.committed()) == {"file"}
    await world.reload("two")
    assert seen(two) == seen(one)


async def test_what_one_container_has_still_and_others_replaced_costs_nobody_a_block(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another container made longer keeps what both contents have, however often the first one commits."""
    clock = Clock()
    monkeypatch.setattr(world.volumes._blocks, "_clock", clock)
    for module in (block_store, overlay_view):
        monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    one = await world.enter("one")
    (one / "log").write_bytes(b"a" * 150)
    os.utime(one / "log", ns=(1, 1))
    await world.commit("one")
    two = await world.enter("two")
    with (two / "log").open("ab") as file:
        file.write(b"b" * 100)
    await world.commit("two")
    for _ in range(4):
        clock.now += 2 * block_store.UNUSED_SECONDS
        world.volumes._blocks.release([])
        await world.commit("one")
    assert world.committed()["log"][3] == b"a" * 150 + b"b" * 100


@pytest.mark.parametrize("change", ["chmod", "rename"])
async def test_what_was_removed_elsewhere_meanwhile_can_be_committed_again(
    world: World, isolation: Isolation, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A container still has the content of its start: a new mode or a new folder brings it back as a whole."""
    if isolation is not Isolation.ROOT and change == "rename":
        pytest.skip("the kernel renames no such folder in a user namespace")
    clock = Clock()
    monkeypatch.setattr(world.volumes._blocks, "_clock", clock)
    one = await world.enter("one")
    (one / "folder").mkdir()
    (one / "folder" / "file").write_text("content")
    await world.leave("one")
    two = await world.enter("two")
    three = await world.enter("three")
    shutil.rmtree(three / "folder")
    await world.commit("three")
    for _ in range(3):
        clock.now += 2 * block_store.UNUSED_SECONDS
        world.volumes._blocks.release([])
    if change == "rename":
        (two / "folder").rename(two / "moved")
    else:
        (two / "folder" / "file").chmod(0o600)
    await world.commit("two")
    found = [entry[3] for path, entry in world.committed().items() if path.endswith("file")]
    assert found == [b"content"]


PATHS = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f/g"])
WHO = st.sampled_from(["one", "two"])


class OverlayMachine(RuleBasedStateMachine):
    """Two containers that do to their files whatever the kernel lets them. What a container sees is what its commit
    leaves in the volume, but for what the other one committed; after a reload both are the same; and a third container
    that starts sees the volume."""

    isolation = Isolation.ROOT

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.world = self.run(World(Path(self.folder.name), self.isolation).start())
        self.roots = {who: self.run(self.world.enter(who)) for who in ("one", "two")}
        self.started = 0

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    def teardown(self) -> None:
        self.run(self.world.close())
        self.loop.close()
        self.folder.cleanup()

    def tried(self, what: Callable[[], object]) -> None:
        # The kernel may say no: a folder is not empty, a parent is a file.
        with contextlib.suppress(OSError, shutil.Error):
            what()

    @rule(who=WHO, path=PATHS, content=st.binary(max_size=3), mode=st.sampled_from(["wb", "ab", "r+b"]))
    def write(self, who: str, path: str, content: bytes, mode: str) -> None:
        def work() -> None:
            target = self.roots[who] / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open(mode) as file:
                file.write(content)

        self.tried(work)

    @rule(who=WHO, path=PATHS)
    def remove(self, who: str, path: str) -> None:
        target = self.roots[who] / path
        is_folder = target.is_dir() and not target.is_symlink()
        self.tried(lambda: shutil.rmtree(target) if is_folder else target.unlink())

    @rule(who=WHO, path=PATHS)
    def make(self, who: str, path: str) -> None:
        self.tried(lambda: (self.roots[who] / path).mkdir(parents=True))

    @rule(who=WHO, path=PATHS, to=PATHS)
    def rename(self, who: str, path: str, to: str) -> None:
        self.tried(lambda: (self.roots[who] / path).rename(self.roots[who] / to))

    @rule(who=WHO, path=PATHS, to=PATHS)
    def link(self, who: str, path: str, to: str) -> None:
        self.tried(lambda: (self.roots[who] / path).symlink_to(to))

    @rule(who=WHO, path=PATHS, to=PATHS)
    def hard_link(self, who: str, path: str, to: str) -> None:
        self.tried(lambda: (self.roots[who] / path).hardlink_to(self.roots[who] / to))

    @rule(who=WHO, path=PATHS, mode=st.sampled_from([0o755, 0o700, 0o640]))
    def chmod(self, who: str, path: str, mode: int) -> None:
        self.tried(lambda: (self.roots[who] / path).chmod(mode))

    @rule(who=WHO, path=PATHS, time=st.integers(10**18, 10**18 + 2))
    def touch(self, who: str, path: str, time: int) -> None:
        self.tried(lambda: os.utime(self.roots[who] / path, ns=(time, time), follow_symlinks=False))

    @rule(who=WHO)
    def commit(self, who: str) -> None:
        before = self.world.committed()
        self.run(self.world.commit(who))
        after, mine = self.world.committed(), seen(self.roots[who])
        for path in after.keys() | mine.keys():
            # What differs is what the other container committed, and has not been touched here.
            if after.get(path) != mine.get(path) and path in after:
                assert after[path] == before.get(path) or after[path][0] == "directory", path
        self.run(self.world.commit(who))
        assert self.world.committed() == after

    @rule(who=WHO)
    def reload(self, who: str) -> None:
        self.run(self.world.reload(who))
        assert seen(self.roots[who]) == self.world.committed()

    @rule(who=WHO)
    def restart(self, who: str) -> None:
        self.run(self.world.leave(who))
        self.roots[who] = self.run(self.world.enter(who))
        assert seen(self.roots[who]) == self.world.committed()

    @rule()
    def build_later(self) -> None:
        async def work() -> None:
            tree = self.world.volumes._volumes.get(self.world.id).layers
            assert tree is not None
            tree.build_later(0)
            await asyncio.sleep(0.01)

        self.run(work())


TestOverlay = OverlayMachine.TestCase
TestOverlay.settings = settings(
    max_examples=6, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
