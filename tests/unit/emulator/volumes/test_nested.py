"""Volumes inside Volumes, in rooms like a container's: each file lands in its own, and nothing of ours in any."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from modal_proto import api_pb2

from modalflow.emulator.processes.container_spec import Isolation, VolumeView
from modalflow.emulator.processes.root import rootfs
from tests.contract.isolated import problem_with
from tests.unit.emulator.volumes.mounting import mounted
from tests.unit.emulator.volumes.test_overlay_view import KINDS, World, inside

NAMES = ("outer", "middle", "inner")


class Nest(World):
    """Several volumes, and rooms that mount them inside each other."""

    async def make(self) -> None:
        self.ids: dict[str, str] = {}
        for name in NAMES:
            request = api_pb2.VolumeGetOrCreateRequest(object_creation_type=api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL)
            self.ids[name] = (await self.volumes.VolumeGetOrCreate(request, inside(""))).volume_id

    async def mount(self, container_id: str, mounts: dict[str, str], *others: VolumeView) -> Path:
        """Start a container with volumes at these paths, in that order; return its root."""
        views = []
        for path, name in mounts.items():
            view = await self.volumes.attach(self.ids[name], container_id, background_commits=False)
            views.append(VolumeView(self.ids[name], view.root, path, layers=tuple(view.layers)))
        return await self.rooms.enter(container_id, *views, *others)

    async def end(self, container_id: str) -> None:
        await self.rooms.leave(container_id)
        for volume_id, holder in list(self.volumes._attached):
            if holder == container_id:
                await self.volumes.detach(volume_id, container_id)

    def files(self, name: str) -> set[str]:
        tree, _ = self.volumes._find(self.ids[name])
        return set(tree.nodes())


@pytest.fixture(scope="module", params=KINDS, ids=[kind.value for kind in KINDS])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    kind: Isolation = request.param
    if problem := problem_with(kind):
        pytest.skip(f"containers cannot be kept apart by {kind.value} here: {problem}")
    return kind


@pytest.fixture
async def nest(tmp_path: Path, isolation: Isolation) -> AsyncIterator[Nest]:
    """Three empty volumes."""
    nest = Nest(tmp_path, isolation)
    await nest.rooms.start()
    await nest.make()
    yield nest
    await nest.close()


def inside_of(root: Path, path: str) -> Path:
    """What a path means in a room, whose links lead from its own root."""
    names, here = path.strip("/").split("/"), Path("/")
    while names:
        here = here / names.pop(0)
        there = root / str(here).lstrip("/")
        if there.is_symlink():
            target = there.readlink()
            names = [*str(target).strip("/").split("/"), *names]
            here = Path("/") if target.is_absolute() else here.parent
    return root / str(here).lstrip("/")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids=" ".join)
async def test_each_file_lands_in_its_volume(nest: Nest, order: tuple[str, ...]) -> None:
    """In whichever order a chain of volumes is declared; the folders that they are mounted on are in no volume."""
    paths = {"outer": "/mf-data", "middle": "/mf-data/a/cache", "inner": "/mf-data/a/cache/deep/er"}
    for container_id in ("one", "two"):
        root = await nest.mount(container_id, {paths[name]: name for name in order})
        for name, path in paths.items():
            inside_of(root, f"{path}/of-{name}").write_text(container_id)
        assert names(inside_of(root, "/mf-data")) == ["a", "of-outer"]
        await nest.end(container_id)
        assert [nest.files(name) for name in NAMES] == [{"of-outer"}, {"of-middle"}, {"of-inner"}]


async def test_a_volume_over_a_folder_that_the_outer_one_has(nest: Nest) -> None:
    """What the outer volume has there is hidden, unchanged, and kept; beside it all is as it was."""
    root = await nest.mount("one", {"/mf-data": "outer"})
    (inside_of(root, "/mf-data") / "a" / "cache").mkdir(parents=True)
    (inside_of(root, "/mf-data/a/cache") / "hidden").write_text("1")
    inside_of(root, "/mf-data/a").chmod(0o710)
    await nest.end("one")
    tree, _ = nest.volumes._find(nest.ids["outer"])
    before = tree.nodes()
    root = await nest.mount("two", {"/mf-data/a/cache": "inner", "/mf-data": "outer"})
    inside_of(root, "/mf-data/a/cache/seen").write_text("2")
    assert names(inside_of(root, "/mf-data/a/cache")) == ["seen"]
    assert inside_of(root, "/mf-data/a").stat().st_mode & 0o777 == 0o710
    await nest.end("two")
    assert (tree.nodes(), nest.files("inner")) == (before, {"seen"})


@pytest.mark.parametrize("target", ["real", "/mf-data/real", "/mf-elsewhere", "missing"])
async def test_a_volume_below_a_link_of_the_outer_one(nest: Nest, target: str) -> None:
    """The link leads to where it leads, stays what it is, and the inner volume's files are the inner volume's."""
    root = await nest.mount("one", {"/mf-data": "outer"})
    (inside_of(root, "/mf-data") / "real").mkdir()
    (inside_of(root, "/mf-data") / "link").symlink_to(target)
    await nest.end("one")
    for path in ("/mf-data/link", "/mf-data/link/cache"):
        root = await nest.mount("two", {"/mf-data": "outer", path: "inner"})
        inside_of(root, f"{path}/file").write_text("1")
        await nest.end("two")
        assert (nest.files("outer"), nest.files("inner")) == ({"real", "link"}, {"file"})


async def test_a_volume_over_a_file_of_the_outer_one(nest: Nest) -> None:
    """The file is hidden while the inner volume is mounted, and there again afterwards."""
    root = await nest.mount("one", {"/mf-data": "outer"})
    (inside_of(root, "/mf-data") / "cache").write_text("1")
    await nest.end("one")
    root = await nest.mount("two", {"/mf-data": "outer", "/mf-data/cache": "inner"})
    inside_of(root, "/mf-data/cache/file").write_text("2")
    await nest.end("two")
    root = await nest.mount("three", {"/mf-data": "outer"})
    assert inside_of(root, "/mf-data/cache").read_text() == "1"
    assert nest.files("inner") == {"file"}


async def test_a_bucket_in_a_volume_and_the_reverse(nest: Nest, tmp_path: Path) -> None:
    """A bucket's folder takes what is written below its mount path, and a volume in it what is written there."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    root = await nest.mount("one", {"/mf-data": "outer"}, VolumeView("bucket-0", bucket, "/mf-data/bucket"))
    inside_of(root, "/mf-data/bucket/object").write_text("1")
    await nest.end("one")
    assert (nest.files("outer"), names(bucket)) == (set(), ["object"])
    root = await nest.mount("two", {"/mf-bucket/a/data": "inner"}, VolumeView("bucket-0", bucket, "/mf-bucket"))
    inside_of(root, "/mf-bucket/a/data/file").write_text("2")
    await nest.end("two")
    assert nest.files("inner") == {"file"}


async def test_a_nested_volume_is_reloaded_and_so_is_the_outer_one(nest: Nest) -> None:
    """What others commit is brought into either, through the mounts that are there."""
    paths = {"/mf-data": "outer", "/mf-data/cache": "inner"}
    one, two = await nest.mount("one", paths), await nest.mount("two", paths)
    for path, name in paths.items():
        inside_of(one, f"{path}/file").write_text(name)
        await nest.volumes.VolumeCommit(api_pb2.VolumeCommitRequest(volume_id=nest.ids[name]), inside("one"))
        await nest.volumes.VolumeReload(api_pb2.VolumeReloadRequest(volume_id=nest.ids[name]), inside("two"))
        assert inside_of(two, f"{path}/file").read_text() == name
    assert (nest.files("outer"), nest.files("inner")) == ({"file"}, {"file"})


@pytest.mark.parametrize("shape", ["inside", "part"])
async def test_a_symlink_of_a_volume_leads_to_nothing_of_the_host(nest: Nest, tmp_path: Path, shape: str) -> None:
    """While a container's mounts are made the host's root is still there: a Volume's symlink to it is refused."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    root = await nest.mount("one", {"/a": "outer"})
    (mounted(root, nest.ids["outer"]) / "out").symlink_to(f"{rootfs._HOST}{outside}")
    await nest.end("one")
    with pytest.raises(AssertionError, match="leads out of the container"):
        if shape == "inside":
            await nest.mount("two", {"/a": "outer", "/a/out/file": "inner"})
        else:
            view = await nest.volumes.attach(nest.ids["outer"], "two", background_commits=False)
            part = VolumeView(nest.ids["outer"], view.root, "/usr", "out", layers=tuple(view.layers))
            await nest.rooms.enter("two", part)
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("file", "untouched")]
    await nest.end("two")
