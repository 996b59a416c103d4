"""What is no longer needed of a state folder goes, and holds nothing up."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.state import trash
from modalflow.emulator.state.trash import Trash, remove_tree
from tests.support import wait_until


def tree(folder: Path) -> Path:
    (folder / "a" / "b").mkdir(parents=True)
    for n in range(600):
        (folder / "a" / "b" / str(n)).write_text("x")
    (folder / "a" / "link").symlink_to(folder.parent)
    (folder / "a" / "closed").mkdir(mode=0o000)
    return folder


def test_what_is_put_there_is_gone_at_once_and_removed_beside(tmp_path: Path) -> None:
    """Its place is free when the call returns; links are removed and not followed; twice is harmless."""
    bin_ = Trash(tmp_path / "trash")
    folder = tree(tmp_path / "tree")
    bin_.put(folder)
    assert not folder.exists()
    bin_.put(folder)
    wait_until(lambda: not list((tmp_path / "trash").iterdir()), what="the removal")
    bin_.close()
    assert list(tmp_path.iterdir()) == []


def test_an_end_does_not_wait_for_a_long_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed in time is removed by a process that goes on."""
    monkeypatch.setattr(trash, "REMOVE_AT_END_SECONDS", -1.0)
    folder = tree(tmp_path / "tree")
    assert not trash.remove_or_hand_over(folder)
    wait_until(lambda: not folder.exists(), what="the removal by another process")


def test_a_removal_can_be_interrupted(tmp_path: Path) -> None:
    """It says that it was, and goes on from there the next time."""
    folder = tree(tmp_path / "tree")
    turns = iter([False, False, False, True])
    assert not remove_tree(folder, lambda: next(turns))
    assert remove_tree(folder, lambda: False, keep=True)
    assert list(folder.iterdir()) == []
