"""The root file system of a container: which files of the host it shows, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.processes.container_spec import Rootfs
from modalflow.emulator.processes.root.host_layers import HostMounts, place_all


def test_a_file_removed_meanwhile_is_left_out(tmp_path: Path) -> None:
    """A folder for temporary files changes while a container's root is made."""
    first, gone, last = (tmp_path / name for name in ("a", "b", "c"))
    placed = []
    for path in (first, last):
        path.touch()

    def place(path: Path) -> None:
        path.stat()
        placed.append(path)

    place_all([first, gone, last], place)
    assert placed == [first, last]


def test_a_missing_part_of_the_root_is_an_error(tmp_path: Path) -> None:
    """Only the removal of the file itself is excused."""

    def place(_path: Path) -> None:
        raise FileNotFoundError(tmp_path / "upper")

    with pytest.raises(FileNotFoundError):
        place_all([tmp_path], place)


def test_mounts_inside_of_others() -> None:
    """They are shown with the outer one, except beside a container's own files."""
    points = ["/data", "/data/old", "/tmp", "/tmp/build", "/tmp/build/cache", "/tmp/x/y"]
    mounts = HostMounts([Path(point) for point in points], {Path("/"), Path("/tmp"), Path("/tmp/state")})
    assert list(map(str, mounts.shown())) == ["/data", "/tmp", "/tmp/build", "/tmp/x/y"]
    assert [point for point in points if mounts.is_read_only(Path(point))] == ["/data", "/tmp/build"]


def test_the_mounts_of_this_machine(tmp_path: Path) -> None:
    """Neither the root, nor what a container has of its own, nor what is hidden from it."""
    rootfs = Rootfs(tmp_path / "container", tmp_path / "layer", hidden=Path("/sys"))
    found = HostMounts.of(rootfs)
    assert Path("/") not in found.points
    assert not [point for point in found.points if point.parts[1] in ("proc", "dev", "sys")]
    assert {Path("/sys"), Path("/root"), Path("/tmp"), Path("/var/tmp"), Path("/var")} <= found.with_files
