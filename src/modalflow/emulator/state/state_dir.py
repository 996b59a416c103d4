"""The state folder of a control plane: its sub-folders, its token, and the removal of temporary files.

Owns the layout on disk and not its meaning.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import time
from pathlib import Path

from modalflow.emulator.state.disk_space import StateError
from modalflow.emulator.state.file_store import INCOMING, FileStore
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.journal_file import RECORDS
from modalflow.emulator.state.scratch import Scratch
from modalflow.emulator.state.trash import Trash, remove_or_hand_over

log = logging.getLogger(__name__)

#: An unreferenced file may belong to an unfinished upload, also across a restart.
ORPHAN_SECONDS = 3600.0

#: The folders with files of the running process: those of a killed one are removed.
TEMPORARY = ("views", "trees", "containers", "doors", "snapshots")

#: The possible folders of a state folder without a file of records, as modalflow 0.4 left it.
_BEFORE_RECORDS = {*TEMPORARY, "trash", "files", "blocks", "blobs", "layers", "bytecode", "state.lock"}

_TOKEN = "token.json"  # noqa: S105 (a file's name)
_PREFIX = "modalflow-local-"


class StateDir:
    """The folder of one control plane; without a given one, a temporary folder, removed by ``close``."""

    def __init__(self, root: Path | None = None) -> None:
        self._scratch: Scratch | None = None
        if root is None:
            self._scratch = Scratch(_PREFIX)
            self.root = self._scratch.path
        else:
            self.root = root.expanduser().resolve()
            _check_usable(self.root)
        self.journal = Journal(None if root is None else self.root, place=self.root)
        """The services' records of their objects; a temporary folder has none."""
        self.trash = Trash(self.root / "trash")
        """The place for unneeded folders."""
        self.orphaned_before = time.time() - ORPHAN_SECONDS
        """Unreferenced files older than this are removed at the start."""
        if root is not None:
            if self.journal.is_new:
                # Without any record, no upload can be in progress.
                self.orphaned_before = float("inf")
            self._clear()
        self.files = FileStore(self.folder("files"))
        """Files uploaded with MountPutFile: source files of apps and files for version 1 Volumes."""

    def folder(self, name: str) -> Path:
        """Return the sub-folder, made private to this user on first use."""
        folder = self.root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def token(self, token_id: str | None, token_secret: str | None) -> tuple[str, str]:
        """Return a token, with random parts if none are given; a permanent folder keeps its token."""
        path, kept = self.root / _TOKEN, {}
        if self.journal.is_durable and path.exists():
            try:
                kept = dict(json.loads(path.read_text()))
            except ValueError as error:
                raise StateError(f"{path} is not JSON ({error}); remove it to get a new token") from error
        new = {
            "token_id": token_id or kept.get("token_id") or f"ak-{secrets.token_hex(11)}",
            "token_secret": token_secret or kept.get("token_secret") or f"as-{secrets.token_hex(16)}",
        }
        if self.journal.is_durable and not (token_id and token_secret) and new != kept:
            write_private(path, json.dumps(new))
        return new["token_id"], new["token_secret"]

    def _clear(self) -> None:
        """Remove the temporary files of a killed control plane."""
        if self.journal.is_new and any(path.is_dir() for path in self.root.iterdir()):
            log.warning(
                "%s holds files of a modalflow without records: there is nothing to keep, so they are removed",
                self.root,
            )
        for name in TEMPORARY:
            if (self.root / name).is_dir():
                self.trash.put(self.root / name)
        for incoming in (self.root / "layers").glob("tmp-*"):
            shutil.rmtree(incoming, ignore_errors=True)

    def close(self) -> None:
        """Release the folder; a temporary one is removed."""
        self.journal.close()
        self.trash.close()
        if self._scratch is not None:
            if remove_or_hand_over(self.root):
                self._scratch.close()
            else:
                self._scratch.abandon()


def _check_usable(root: Path) -> None:
    """Create the folder if it is missing; StateError if it belongs to another program."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {path.name for path in root.iterdir()}
        # These are removed completely: in a folder without records they must look like a control plane's.
        temporary = [path for name in TEMPORARY for path in (root / name).glob("*")]
    except OSError as error:
        raise StateError(f"the state folder {root} cannot be used: {error}") from error
    others = sorted(found - _BEFORE_RECORDS)
    others += [f"{path.parent.name}/{path.name}" for path in temporary if not path.name.startswith(("ta-", "vo-"))]
    if others and RECORDS not in found:
        raise StateError(
            f"{root} holds {', '.join(others[:3])}{' …' if others[3:] else ''} and no state of a local control plane; "
            "choose an empty or a new folder, because the control plane removes unneeded files from its folder"
        )


def write_private(path: Path, text: str) -> None:
    """Write a file readable only by this user, completely or not at all."""
    incoming = path.with_name(f"{INCOMING}{path.name}")
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    incoming.replace(path)
