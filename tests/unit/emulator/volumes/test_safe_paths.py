"""Files below a directory that someone changes meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modalflow.emulator.volumes.views import safe_paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with links out of it, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("1")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def test_a_file_and_a_directory_are_opened(root: Path) -> None:
    """Also one that its owner may not read, whose mode stays as it is."""
    (root / "folder" / "file").chmod(0)
    with safe_paths.opened(root, "folder/file") as descriptor:
        assert os.read(descriptor, 10) == b"1"
    assert (root / "folder" / "file").stat().st_mode & 0o777 == 0
    with safe_paths.opened(root, "folder") as descriptor:
        assert os.listdir(descriptor) == ["file"]  # noqa: PTH208 (pathlib takes no descriptor)


@pytest.mark.parametrize("path", ["link", "out/secret", "pipe", "missing", "folder/file/below"])
def test_nothing_else_is_opened(root: Path, path: str) -> None:
    """A symlink, at whichever name, counts as gone; so does a pipe, which is not waited for."""
    with pytest.raises(FileNotFoundError), safe_paths.opened(root, path):
        pass


def test_a_link_is_read_and_not_what_it_leads_through(root: Path) -> None:
    """The last name is a symlink; one above it is not followed."""
    assert safe_paths.link_target(root, "link") == str(root.parent / "secret")
    for path in ("out/root/link", "folder/file"):
        with pytest.raises(FileNotFoundError):
            safe_paths.link_target(root, path)


def test_the_mode_of_a_directory_is_set_through_no_symlink(root: Path) -> None:
    """What a symlink points at keeps its mode and time."""
    safe_paths.set_mode_and_time(root, "folder", mode=0o711, mtime_ns=1_000)
    status = (root / "folder").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o711, 1_000)
    before = root.parent.stat()
    with pytest.raises(NotADirectoryError):
        safe_paths.set_mode_and_time(root, "out", mode=0o777, mtime_ns=1_000)
    assert (root.parent.stat().st_mode, root.parent.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
