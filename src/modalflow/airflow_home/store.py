"""The home snapshots of a worker app on its logs Volume, which every container has mounted.

    modalflow-homes/v1/snapshots/<id>     the settings and the list of the files
    modalflow-homes/v1/files/<version>    the contents of these files, one after the other
    modalflow-homes/v1/current/<team>     the id of the newest snapshot, for containers without work yet

They are written in this order, so that every visible snapshot is complete. No snapshot is ever changed, except that an
executor that still uses an old one writes it again: its time is that of its last use. Blocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Protocol

from modalflow.airflow_home.snapshot import HomeSnapshot, is_home_id, pack, unpack
from modalflow.bundles.files import Files, ListedFile
from modalflow.errors import HomeError
from modalflow.names import HOMES_FOLDER, file_name

_ROOT = f"{HOMES_FOLDER}/v1"
_SNAPSHOTS, _FILES, _CURRENT = f"{_ROOT}/snapshots", f"{_ROOT}/files", f"{_ROOT}/current"

#: Snapshots that are kept beside those of the last day.
KEPT = 10
#: Seconds for which every snapshot is kept. An executor writes its own again several times in this time.
KEPT_FOR = 24 * 3600.0
RENEWED_AFTER = 6 * 3600.0

_ALL_TEAMS = "all"
_TEAM = "team="


class Reader(Protocol):
    """A tree of files that is read."""

    def read(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if it does not exist."""


def snapshot_of(reader: Reader, id: str) -> HomeSnapshot:
    """Return a snapshot; raise FileNotFoundError if it is not there, and HomeError if it is not the published one."""
    if not is_home_id(id):
        raise HomeError(f"{id[:100]!r} is no id of an Airflow home: expected 64 hexadecimal digits.")
    return HomeSnapshot.read(reader.read(f"{_SNAPSHOTS}/{id}"), id)


def contents_of(reader: Reader, snapshot: HomeSnapshot) -> dict[str, bytes]:
    """Return the files of a snapshot, by path. Errors are those of ``snapshot_of``."""
    if not snapshot.files.files:
        return {}
    packed = reader.read(f"{_FILES}/{snapshot.files.version}")
    try:
        return unpack(snapshot.files, packed)
    except ValueError as error:
        raise HomeError(
            f"The files of the Airflow host (home {snapshot.id}) are damaged: {error}. Restart the scheduler to "
            "publish them again."
        ) from error


def current(reader: Reader, team: str = "") -> str | None:
    """Return the id of the snapshot that an executor of a team published last; None if there is none."""
    try:
        id = json.loads(reader.read(f"{_CURRENT}/{_pointer(team)}"))["id"]
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return id if isinstance(id, str) and is_home_id(id) else None


class HomeStore:
    """Writes snapshots. ``files`` is the logs Volume, accessed through the SDK."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def publish(self, snapshot: HomeSnapshot, contents: Mapping[str, bytes], team: str = "") -> None:
        """Write a snapshot with its files, and make it the current one of a team."""
        self.write(snapshot, contents)
        pointer = {"id": snapshot.id, "team": team, "published_at": time.time()}
        self.files.put({f"{_CURRENT}/{_pointer(team)}": json.dumps(pointer).encode()})

    def write(self, snapshot: HomeSnapshot, contents: Mapping[str, bytes]) -> None:
        """Write a snapshot with its files, for a workload that names it."""
        if contents:
            self.files.put({f"{_FILES}/{snapshot.files.version}": pack(snapshot.files, contents)})
        self.files.put({f"{_SNAPSHOTS}/{snapshot.id}": snapshot.to_json()})

    def prune(self) -> int:
        """Remove old snapshots, and files that none of the others has; return how many snapshots were removed."""
        now = time.time()
        # Listed first: files that are written from now on belong to a snapshot that is not in this listing.
        files = self.files.list(_FILES)
        found = sorted(self.files.list(_SNAPSHOTS), key=lambda each: each.changed_at, reverse=True)
        old = [each for each in found[KEPT:] if each.changed_at < now - KEPT_FOR]
        for each in old:
            self.files.remove(each.path)
        used = {self._version(each) for each in found if each not in old} if files else set()
        for each in files:
            if _last(each) not in used and each.changed_at < now - KEPT_FOR:
                self.files.remove(each.path)
        return len(old)

    def _version(self, snapshot: ListedFile) -> str:
        try:
            return snapshot_of(self.files, _last(snapshot)).files.version
        except (FileNotFoundError, HomeError):
            return ""


def _pointer(team: str) -> str:
    return file_name(_TEAM + team) if team else _ALL_TEAMS


def _last(entry: ListedFile) -> str:
    return entry.path.rpartition("/")[2]
