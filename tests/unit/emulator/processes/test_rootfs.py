"""The root file system of a container without privileges."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.processes.rootfs import place_all


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
