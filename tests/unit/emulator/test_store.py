"""The state folder and the files in it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest

from modalflow.emulator.store import FileStore, StateDir


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made during the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_temporary_folder_goes_with_its_owner(temporary: Path) -> None:
    """It is private, and close removes it."""
    state = StateDir()
    assert state.root.parent == temporary
    assert state.root.stat().st_mode & 0o077 == 0
    state.folder("some").joinpath("file").write_text("x")
    state.close()
    assert list(temporary.iterdir()) == []


def test_a_given_folder_stays(tmp_path: Path) -> None:
    """What the user named is the user's."""
    state = StateDir(tmp_path / "mine")
    state.close()
    assert (tmp_path / "mine").is_dir()


def test_files_are_found_by_their_content(tmp_path: Path) -> None:
    """The same bytes are one file, whichever way they came; a name that is no hash is refused."""
    store = FileStore(tmp_path)
    sha256 = hashlib.sha256(b"data").hexdigest()
    source = tmp_path / "source"
    source.write_bytes(b"data")
    assert not store.has(sha256)
    assert store.put(b"data") == sha256
    assert store.put_file(source) == (sha256, 4)
    assert store.path(sha256).read_bytes() == b"data"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path != source] == [sha256]
    store.remove(sha256)
    assert not store.has(sha256)
    for name in ("../../etc/passwd", "", sha256.upper()):
        with pytest.raises(ValueError, match="SHA-256"):
            store.path(name)
