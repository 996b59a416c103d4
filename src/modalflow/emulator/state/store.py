"""The state folder, and files stored by the hash of their content.

Owns the layout on disk and nothing of its meaning.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from modalflow.emulator.state.disk_space import StateError
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.journal_file import RECORDS
from modalflow.emulator.state.scratch import Scratch
from modalflow.emulator.state.trash import Trash, remove_or_hand_over

log = logging.getLogger(__name__)

COPY_CHUNK = 1024 * 1024

_SHA256 = re.compile("[0-9a-f]{64}")

#: How the name of a file begins that is being written, in a folder of files found by their content.
INCOMING = ".incoming-"

#: A file that nothing refers to may be part of an upload that is under way, over a restart as well.
ORPHAN_SECONDS = 3600.0

#: The folders that hold what goes with the process: what a killed one left there is cleared away.
PASSING = ("views", "trees", "containers", "doors")

#: The folders that a state folder may have without a file of records: modalflow 0.4 left it so.
_BEFORE_RECORDS = {*PASSING, "trash", "files", "blocks", "blobs", "layers", "bytecode", "state.lock"}

_TOKEN = "token.json"  # noqa: S105 (a file's name)
_PREFIX = "modalflow-local-"


class StateDir:
    """The folder of one control plane; a temporary one, removed by ``close``, where none was given."""

    def __init__(self, root: Path | None = None) -> None:
        self._scratch: Scratch | None = None
        if root is None:
            self._scratch = Scratch(_PREFIX)
            self.root = self._scratch.path
        else:
            self.root = root.expanduser().resolve()
            _check_usable(self.root)
        self.journal = Journal(None if root is None else self.root, place=self.root)
        """Records of what services hold in memory; of a temporary folder, none."""
        self.trash = Trash(self.root / "trash")
        """What is no longer needed goes there."""
        self.orphaned_before = time.time() - ORPHAN_SECONDS
        """Files that no record refers to are removed at the start if they are older than this."""
        if root is not None:
            if self.journal.is_new:
                # Nothing can be under way where nothing was ever recorded.
                self.orphaned_before = float("inf")
            self._clear()
        self.files = FileStore(self.folder("files"))
        """What clients uploaded with MountPutFile: source files of apps and files for version 1 volumes."""

    def folder(self, name: str) -> Path:
        """Return the sub-folder of that name, made private to this user on first use."""
        folder = self.root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def token(self, token_id: str | None, token_secret: str | None) -> tuple[str, str]:
        """Return a token, of random parts where none are given; a folder that stays has the same one each time."""
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
        """Remove what a control plane that was killed left for nobody."""
        if self.journal.is_new and any(path.is_dir() for path in self.root.iterdir()):
            log.warning(
                "%s holds files of a modalflow without records: there is nothing to keep, so they are removed",
                self.root,
            )
        for name in PASSING:
            if (self.root / name).is_dir():
                self.trash.put(self.root / name)
        for incoming in (self.root / "layers").glob("tmp-*"):
            shutil.rmtree(incoming, ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder; a temporary one is removed."""
        self.journal.close()
        self.trash.close()
        if self._scratch is not None:
            if remove_or_hand_over(self.root):
                self._scratch.close()
            else:
                self._scratch.abandon()


def _check_usable(root: Path) -> None:
    """Make the folder if there is none; StateError for one that is somebody's and not a control plane's."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {path.name for path in root.iterdir()}
        # These are removed as a whole: in a folder without records they must hold what a control plane puts there.
        passing = [path for name in PASSING for path in (root / name).glob("*")]
    except OSError as error:
        raise StateError(f"the state folder {root} cannot be used: {error}") from error
    others = sorted(found - _BEFORE_RECORDS)
    others += [f"{path.parent.name}/{path.name}" for path in passing if not path.name.startswith(("ta-", "vo-"))]
    if others and RECORDS not in found:
        raise StateError(
            f"{root} holds {', '.join(others[:3])}{' …' if others[3:] else ''} and no state of a local control plane; "
            "choose an empty or a new folder, because the control plane removes unneeded files from its folder"
        )


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    incoming = path.with_name(f"{INCOMING}{path.name}")
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    incoming.replace(path)


class FileStore:
    """Immutable files, named by the SHA-256 (hex) of what is in them. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: set[str] = set()
        self._prefix = f"{root}/{INCOMING}{secrets.token_hex(4)}-"
        # Counting is one step: no two threads get the same number.
        self._numbers = itertools.count()

    def path(self, sha256: str) -> Path:
        """Return where that content is, or would be. Read it, link it, never write to it."""
        if not _is_sha256(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hex")
        return self._root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return _is_sha256(sha256) and self.path(sha256).exists()

    def put(self, data: bytes) -> str:
        """Keep the bytes, return their SHA-256."""
        return self.put_as(hashlib.sha256(data).hexdigest(), data)

    def put_as(self, sha256: str, data: bytes) -> str:
        """Keep the bytes, whose SHA-256 the caller has computed, and return that."""
        if not self.has(sha256):
            self.add(sha256, data)
        return sha256

    def add(self, sha256: str, data: bytes, dress: Callable[[int], None] = lambda _descriptor: None) -> None:
        """Write a file that is not there yet. ``dress`` is called with it before it can be seen.

        In few system calls: a volume may have a hundred thousand small files.
        """
        target, incoming = str(self.path(sha256)), f"{self._prefix}{next(self._numbers)}"
        folder = os.path.dirname(target)  # noqa: PTH120
        if folder not in self._folders:
            Path(folder).mkdir(exist_ok=True)
            self._folders.add(folder)
        try:
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                dress(descriptor)
            finally:
                os.close(descriptor)
            os.replace(incoming, target)  # noqa: PTH105
        except BaseException:
            Path(incoming).unlink(missing_ok=True)
            raise

    def put_stream(self, source: BinaryIO) -> tuple[str, int]:
        """Copy all that is left to read, return its SHA-256 and size."""
        digest, size = hashlib.sha256(), 0
        with self._incoming() as (file, name):
            while chunk := source.read(COPY_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            return self._settle(name, digest.hexdigest()), size

    def put_file(self, path: Path) -> tuple[str, int]:
        """Keep a copy of a file, return its SHA-256 and the size of what was copied."""
        with path.open("rb") as source:
            return self.put_stream(source)

    def move_in(self, path: Path, sha256: str) -> bool:
        """Keep a file of the same file system, which is no longer at its path then; return False if it is another."""
        try:
            with path.open("rb") as source:
                found = hashlib.file_digest(source, "sha256").hexdigest()
            if found == sha256:
                self._settle(path, sha256)
            return found == sha256
        except FileNotFoundError:
            # The same call, repeated, may have moved it meanwhile.
            if not self.has(sha256):
                raise
            return True

    def clear_orphans(self, used: Collection[str], older_than: float) -> int:
        """Remove files that are not among those and are older than that time; return how many went.

        What was being written when its writer was killed goes too.
        """
        gone = 0
        for incoming in self._root.glob(f"{INCOMING}*"):
            incoming.unlink(missing_ok=True)
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            if len(path.name) != 64 or path.name in used:
                continue
            if path.stat().st_mtime < older_than:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[tuple[BinaryIO, Path]]:
        descriptor, name = tempfile.mkstemp(dir=self._root, prefix=INCOMING)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def _settle(self, incoming: Path, sha256: str) -> str:
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        incoming.replace(target)
        return sha256


def _is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None
