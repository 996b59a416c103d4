"""Temporary folders that end with their process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from modalflow.emulator.state.scratch import Scratch, remove

PREFIX = "modalflow-scratch-"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made during the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_owner_left_is_removed_by_the_next(temporary: Path) -> None:
    """A folder whose owner is gone goes; one that is in use stays, and so does one that nobody here has made."""
    alive = Scratch(PREFIX)
    dead = Scratch(PREFIX)
    (dead.path / "some").mkdir()
    dead._lock.close()  # As the system does when a process dies.
    other = temporary / f"{PREFIX}notes"
    other.mkdir()

    new = Scratch(PREFIX)
    assert not dead.path.exists()
    assert alive.path.exists() and other.exists()
    new.close()
    alive.close()
    assert list(temporary.iterdir()) == [other]


def test_what_is_abandoned_stays_until_the_next(temporary: Path) -> None:
    """Its readers have it until then."""
    abandoned = Scratch(PREFIX)
    (abandoned.path / "log").write_text("x")
    abandoned.abandon()
    assert (abandoned.path / "log").read_text() == "x"
    Scratch(PREFIX).close()
    assert list(temporary.iterdir()) == []


def test_folders_closed_to_their_owner_go_too(tmp_path: Path) -> None:
    """A task may take the right to write from a folder of its own; what a link leads to is not touched."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    folder = tmp_path / "scratch"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "a" / "link").symlink_to(outside)
    (folder / "a" / "b").chmod(0o500)
    (folder / "a").chmod(0o500)
    remove(folder)
    assert not folder.exists()
    assert outside.stat().st_mode & 0o777 == 0o500
