"""Files of layers, read and placed without a mount, as overlayfs shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modalflow.emulator.images.building.layered_tree import LayeredTree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="marks of overlayfs need root")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An upper layer, a lower one and a root file system with a merged /usr."""
    upper, lower, base = (tmp_path / name for name in ("upper", "lower", "base"))
    for folder in ("base/usr/bin", "base/etc", "lower/usr/bin", "upper"):
        (tmp_path / folder).mkdir(parents=True)
    (base / "bin").symlink_to("usr/bin")
    (base / "usr/bin/sh").write_text("shell")
    (base / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (lower / "usr/bin/tool").write_text("tool")
    return upper, lower, base


def test_folders_are_merged_and_symlinks_followed(folders: tuple[Path, Path, Path]) -> None:
    """The uppermost file counts, and a path may lead over symlinks of the root below."""
    upper, lower, base = folders
    tree = LayeredTree((upper, lower), base)
    assert tree.on_host("/bin/tool") == lower / "usr/bin/tool"
    assert tree.on_host("/bin/sh") == base / "usr/bin/sh"
    assert tree.on_host("/bin/../etc/passwd") == base / "etc/passwd"
    assert tree.on_host("/nothing") is None
    assert tree.names("/bin") == {"sh", "tool"}
    assert tree.is_of_layer("/bin/tool") and not tree.is_of_layer("/bin/sh")


def test_a_circle_of_symlinks_is_an_error(folders: tuple[Path, Path, Path]) -> None:
    """As in Linux, it is no endless loop."""
    upper, lower, base = folders
    (lower / "a").symlink_to("/b")
    (lower / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        LayeredTree((upper, lower), base).real_path("/a/file")


def test_files_are_placed_behind_symlinks(folders: tuple[Path, Path, Path]) -> None:
    """A copy to /bin lands in /usr/bin, and does not replace the symlink; folders keep the modes below."""
    upper, lower, base = folders
    (lower / "usr").chmod(0o711)
    tree = LayeredTree((upper, lower), base)
    tree.place("/bin/new").write_text("new")
    assert (upper / "usr/bin/new").read_text() == "new"
    assert not (upper / "bin").exists()
    assert (upper / "usr").stat().st_mode & 0o777 == 0o711
    with pytest.raises(IsADirectoryError):
        tree.place("/usr/bin")
    with pytest.raises(NotADirectoryError):
        tree.place("/etc/passwd/file")


@needs_root
def test_removed_files_and_folders_stay_removed(folders: tuple[Path, Path, Path]) -> None:
    """A mark hides what is below, and a new folder of that name does not show it again."""
    upper, lower, base = folders
    os.mknod(lower / "etc", 0o020000, 0)
    tree = LayeredTree((upper, lower), base)
    assert tree.on_host("/etc/passwd") is None
    assert tree.names("/") == {"usr", "bin"}
    # The mark is in the uppermost layer itself.
    tree = LayeredTree((lower,), base)
    tree.place("/etc/hosts").write_text("")
    assert tree.names("/etc") == {"hosts"}
    assert tree.on_host("/etc/passwd") is None
