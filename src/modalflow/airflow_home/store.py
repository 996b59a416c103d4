"""The home snapshots of a worker app on its logs Volume, mounted in every container.

    modalflow-homes/v1/snapshots/<id>     the settings and the list of the files
    modalflow-homes/v1/files/<version>    the contents of these files, one after the other
    modalflow-homes/v1/current/<team>     the id of the newest snapshot, for containers without work yet
    modalflow-homes/v1/current/any        the same, of all teams

They are written in this order, so every visible snapshot is complete. No snapshot is ever changed, but an executor
writes its own again from time to time: the time of a file is the time of its last use. Blocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from modalflow.airflow_home.snapshot import HomeSnapshot, is_home_id, pack, unpack
from modalflow.bundles.files import Files, ListedFile
from modalflow.errors import HomeError
from modalflow.names import HOMES_FOLDER, file_name
from modalflow.support.text import from_json

_ROOT = f"{HOMES_FOLDER}/v1"
_SNAPSHOTS, _FILES, _CURRENT = f"{_ROOT}/snapshots", f"{_ROOT}/files", f"{_ROOT}/current"

#: Snapshots that are kept beside those of the last day.
KEPT = 10
#: Seconds for which every snapshot is kept. An executor writes its own again several times in this time.
KEPT_FOR = 24 * 3600.0
RENEWED_AFTER = 6 * 3600.0

_ALL_TEAMS, _ANY_TEAM = "all", "any"
_TEAM = "team="


class Reader(Protocol):
    """A readable tree of files."""

    def read(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if it does not exist."""


def snapshot_of(reader: Reader, id: str) -> HomeSnapshot:
    """Return a snapshot; raise FileNotFoundError if it does not exist, and HomeError if it was changed."""
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


@dataclass(frozen=True)
class Pointer:
    """The newest snapshot of a team."""

    id: str
    published_at: float


def current(reader: Reader, team: str = "") -> Pointer | None:
    """Return the newest snapshot of a team, or of executors without a team; None if there is none."""
    return _pointer(reader, _pointer_name(team))


def likeliest(reader: Reader) -> str | None:
    """Return the id of the snapshot that a container's first workload likely has; None if there is none.

    It is that of executors without a team, unless they have not run for long.
    """
    everyone, newest = current(reader), _pointer(reader, _ANY_TEAM)
    if everyone is None or newest is None:
        return newest.id if newest is not None else None
    return everyone.id if newest.published_at - everyone.published_at < KEPT_FOR else newest.id


def _pointer(reader: Reader, name: str) -> Pointer | None:
    try:
        # Any task can write to this Volume.
        wire = from_json(reader.read(f"{_CURRENT}/{name}"))
        pointer = Pointer(wire["id"], float(wire["published_at"]))
        return pointer if is_home_id(pointer.id) else None
    except (FileNotFoundError, KeyError, OverflowError, TypeError, ValueError):
        return None


class HomeStore:
    """Writes snapshots. ``files`` is the logs Volume, accessed through the SDK."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def publish(self, snapshot: HomeSnapshot, contents: Mapping[str, bytes], team: str = "") -> None:
        """Write a snapshot with its files, and make it the current one of a team."""
        self.write(snapshot, contents)
        pointer = json.dumps({"id": snapshot.id, "team": team, "published_at": time.time()}).encode()
        self.files.put({f"{_CURRENT}/{name}": pointer for name in (_pointer_name(team), _ANY_TEAM)})

    def write(self, snapshot: HomeSnapshot, contents: Mapping[str, bytes]) -> None:
        """Write a snapshot with its files, for the workloads with its id."""
        if contents:
            self.files.put({f"{_FILES}/{snapshot.files.version}": pack(snapshot.files, contents)})
        self.files.put({f"{_SNAPSHOTS}/{snapshot.id}": snapshot.to_json()})

    def prune(self) -> int:
        """Remove old snapshots, and files without a snapshot; return the number of removed snapshots."""
        now = time.time()
        # Listed first: later files belong to snapshots outside of this listing.
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


def _pointer_name(team: str) -> str:
    return file_name(_TEAM + team) if team else _ALL_TEAMS


def _last(entry: ListedFile) -> str:
    return entry.path.rpartition("/")[2]
