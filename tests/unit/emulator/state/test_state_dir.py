"""The state folder and the files in it."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from modalflow.emulator.state.file_store import FileStore
from modalflow.emulator.state.journal import StateError
from modalflow.emulator.state.state_dir import ORPHAN_SECONDS, StateDir


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


def test_a_folder_that_stays_is_private(tmp_path: Path) -> None:
    """Nobody else can read the records, in which Secrets are in the clear, or the token, or look into the folders."""
    state = StateDir(tmp_path / "mine")
    state.journal.table("things", str).put("", "a", "secret")
    state.token(None, None)
    for path in (state.root, *state.root.rglob("*")):
        if path.name != "state.lock":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert {"state.sqlite3", "state.sqlite3-wal", "token.json"} <= {path.name for path in state.root.iterdir()}
    state.close()


def test_an_ephemeral_folder_has_no_records(temporary: Path) -> None:
    """Without a folder of the user's nothing is recorded and no token is kept."""
    state = StateDir()
    assert state.token(None, None) != state.token(None, None)
    assert not any(path.is_file() and path.name != ".lock" for path in state.root.rglob("*"))
    state.close()


def test_a_folder_that_stays_keeps_its_token(tmp_path: Path) -> None:
    """The same token each time; one that is given counts for that time and is not kept."""
    tokens = []
    for given in ((None, None), (None, None), ("ak-mine", "as-mine"), (None, None)):
        state = StateDir(tmp_path / "mine")
        tokens.append(state.token(*given))
        state.close()
    assert tokens == [tokens[0], tokens[0], ("ak-mine", "as-mine"), tokens[0]]
    (tmp_path / "mine" / "token.json").write_text("{")
    state = StateDir(tmp_path / "mine")
    with pytest.raises(StateError, match=r"token\.json is not JSON.*remove it"):
        state.token(None, None)
    state.close()


def test_what_a_killed_one_left_is_cleared(tmp_path: Path) -> None:
    """Views, containers, doors and half-written files go; files that nothing refers to go once they are old."""
    StateDir(tmp_path).close()
    for left in (
        "views/vo-1/ta-1/root/file",
        "trees/vo-1/1/file",
        "containers/ta-1/arguments.bin",
        "doors/ta-1",
        "layers/tmp-1/file",
    ):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("x")
    store = FileStore(tmp_path / "files")
    used, old, young = store.put(b"used"), store.put(b"old"), store.put(b"young")
    (tmp_path / "files" / ".incoming-x").write_text("half")
    for sha256 in (used, old):
        os.utime(store.path(sha256), (0, 0))
    state = StateDir(tmp_path)
    assert state.files.clear_orphans({used}, state.orphaned_before) == 1
    assert store.has(used) and store.has(young) and not store.has(old)
    assert not any((tmp_path / name).exists() for name in ("views", "trees", "containers", "doors"))
    assert ORPHAN_SECONDS > 0
    state.close()
    assert not list(tmp_path.rglob("tmp-*")) and not list(tmp_path.rglob(".incoming-*"))
    assert not (tmp_path / "trash").exists()


def test_the_folder_of_an_older_modalflow_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files without records are nobody's: they are removed however young they are, and the log says so."""
    (tmp_path / "files").mkdir()
    sha256 = FileStore(tmp_path / "files").put(b"data")
    (tmp_path / "views" / "vo-1").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        state = StateDir(tmp_path)
    assert "there is nothing to keep" in caplog.text
    assert state.files.clear_orphans((), state.orphaned_before) == 1
    assert not state.files.has(sha256)
    state.close()


@pytest.mark.parametrize("theirs", ["thesis.txt", "containers/blue"])
def test_somebody_elses_folder_is_refused(tmp_path: Path, theirs: str) -> None:
    """A folder that holds something else is left as it is, and the message names what it holds."""
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).write_text("x")
    with pytest.raises(StateError, match=rf"holds {theirs} and no state of a local control plane; choose an empty"):
        StateDir(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / theirs]


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
