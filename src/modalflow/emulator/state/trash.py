"""Unneeded folders of the state folder, removed in the background.

Owns their removal in the background: a path put here is free at once. When the control plane ends, the removal has a
short time; the rest is handed to another process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds for the removal of files at the end of a control plane.
REMOVE_AT_END_SECONDS = 1.5

#: A folder at a longer path is moved up before its removal. With the longest name it stays below Linux's PATH_MAX.
LONG_PATH_BYTES = 3_000


class Trash:
    """One folder with all paths to be removed. Its methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def put(self, path: Path) -> None:
        """Remove a file or folder in the background; a missing one is ignored."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.rename(self._folder / secrets.token_hex(8))
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._empty, name="state-trash", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Remove the rest, if necessary by another process."""
        self._stop.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        remove_or_hand_over(self._folder)

    def _empty(self) -> None:
        while True:
            remove_tree(self._folder, self._stop.is_set, keep=True)
            with self._lock:
                if self._stop.is_set() or not any(self._folder.iterdir()):
                    self._thread = None
                    return
            # A file cannot be removed now, or was added meanwhile.
            self._stop.wait(0.2)


def remove_or_hand_over(folder: Path) -> bool:
    """Remove a folder within a short time, or let another process do it; return whether it is gone.

    It is handed over only if the time was too short.
    """
    deadline = time.monotonic() + REMOVE_AT_END_SECONDS
    removed = not folder.exists() or remove_tree(folder, lambda: time.monotonic() > deadline)
    if not removed and time.monotonic() > deadline:
        # Two steps: the process is then no child of this one.
        subprocess.run(
            ["/bin/sh", "-c", 'rm -rf -- "$0" &', str(folder)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return False
    return True


def remove_tree(folder: Path, interrupted: Callable[[], bool], *, keep: bool = False) -> bool:
    """Remove a folder with its content; return whether it was not interrupted. ``keep`` leaves the folder, empty."""
    pending = [str(folder)]
    while pending:
        here = pending[-1]
        folders: list[str] = []
        try:
            if len(os.fsencode(here)) > LONG_PATH_BYTES:
                up = f"{folder}/{secrets.token_hex(8)}"
                os.rename(here, up)  # noqa: PTH104
                here = pending[-1] = up
            with os.scandir(here) as entries:
                for number, entry in enumerate(entries):
                    if number % 256 == 0 and interrupted():
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        os.unlink(entry.path)  # noqa: PTH108 (for each of very many files)
            if not folders and not (keep and here == str(folder)):
                os.rmdir(here)  # noqa: PTH106
        except FileNotFoundError:
            folders = []
        except PermissionError:
            # A container may have made its folders read-only.
            if stat.S_IMODE(os.stat(here).st_mode) & stat.S_IRWXU == stat.S_IRWXU:  # noqa: PTH116
                return False
            os.chmod(here, stat.S_IRWXU)  # noqa: PTH101
            continue
        except OSError:
            # A process still writes there, or has a mount there.
            return False
        if folders:
            pending += folders
        else:
            pending.pop()
    return True
