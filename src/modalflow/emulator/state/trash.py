"""Unneeded folders of the state folder, removed in the background.

Owns their removal, beside all other work: what is put here is gone from its place at once. At the end of the control
plane the removal has a moment; what is left then is handed to a process that outlives this one.
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

#: How long the end of a control plane waits for files to be removed.
REMOVE_AT_END_SECONDS = 1.5

#: A folder at a longer path is moved up before it is removed. With the longest name that is less than Linux's PATH_MAX.
LONG_PATH_BYTES = 3_000


class Trash:
    """One folder with all that is to be removed. Its methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def put(self, path: Path) -> None:
        """Have a file or folder removed; one that is not there is gone already."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.rename(self._folder / secrets.token_hex(8))
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._empty, name="state-trash", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Remove what is left, if need be by a process that goes on."""
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
            # Something cannot be removed now, or came meanwhile.
            self._stop.wait(0.2)


def remove_or_hand_over(folder: Path) -> bool:
    """Remove a folder within a moment, or have a process remove it that outlives this one; return whether it is gone.

    It is handed over only if the time was too short.
    """
    deadline = time.monotonic() + REMOVE_AT_END_SECONDS
    removed = not folder.exists() or remove_tree(folder, lambda: time.monotonic() > deadline)
    if not removed and time.monotonic() > deadline:
        # Two steps: the process that does it is no child of this one.
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
    """Remove a folder and all in it; return whether that was done, and not interrupted. ``keep`` leaves it, empty."""
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
            # What ran there may have closed its folders.
            if stat.S_IMODE(os.stat(here).st_mode) & stat.S_IRWXU == stat.S_IRWXU:  # noqa: PTH116
                return False
            os.chmod(here, stat.S_IRWXU)  # noqa: PTH101
            continue
        except OSError:
            # Something is still being written there, or mounted.
            return False
        if folders:
            pending += folders
        else:
            pending.pop()
    return True
