"""Temporary folders, removed after their process ends in any way.

Owns their creation, locking and removal; the content belongs to the caller. A folder is locked as long as its process
lives, so that the next process can recognise abandoned ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

log = logging.getLogger(__name__)

_LOCK = ".lock"
#: Seconds for ending processes to finish their writes to a folder being removed.
REMOVE_SECONDS = 5.0


class Scratch:
    """A private temporary folder, removed by ``close``.

    After a kill or ``abandon``, the next one with the same prefix removes it when it is created in the same place.
    ``inside`` is the parent folder, by default the system's for temporary files.
    """

    def __init__(self, prefix: str, inside: Path | None = None) -> None:
        inside = inside or Path(tempfile.gettempdir())
        _remove_abandoned(inside, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=inside))
        # Locked before it gets its name, so that no process can find it unlocked.
        incoming = self.path / f"{_LOCK}.incoming"
        self._lock = incoming.open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        incoming.rename(self.path / _LOCK)

    def close(self) -> None:
        """Remove the folder."""
        remove(self.path)
        self._lock.close()

    def abandon(self) -> None:
        """Leave the folder to its readers, until the next one is created."""
        self._lock.close()


def remove(folder: Path) -> None:
    """Remove a folder, its lock last, so that an interrupted removal is found again."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while not _emptied(folder):
        if time.monotonic() > deadline:
            log.warning("%s cannot be removed: %s", folder, ", ".join(sorted(path.name for path in folder.iterdir())))
            return
        _open_up(folder)
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _emptied(folder: Path) -> bool:
    """Remove all files except the lock; return whether this worked."""
    empty = True
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name == _LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
            empty = empty and not os.path.lexists(path)
    return empty


def _open_up(folder: Path) -> None:
    """Make every folder in it writable: a container may have made its own read-only."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)


def _remove_abandoned(inside: Path, prefix: str) -> None:
    for folder in inside.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
