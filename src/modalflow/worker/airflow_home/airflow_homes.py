"""The Airflow homes of a container: fetched once each, checked, and written as a folder.

Works in the container's main process, before a task's own process exists. A snapshot is read from the mount of the logs
Volume. An older container does not see it there, and reads it through the SDK. Must not import
Airflow.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from modal import exception

from modalflow.airflow_home.sealing import unseal
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import Reader, contents_of, likeliest, snapshot_of
from modalflow.errors import HomeError
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe, words_of
from modalflow.worker.airflow_home.airflow_home import AirflowHome
from modalflow.worker.airflow_home.config_file import config_file
from modalflow.worker.airflow_home.own_home import NO_HOME, OwnHome

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: The attempts of a call to Modal, and the seconds before the second one.
_TRIES = 4
_PAUSE, _LONGEST_PAUSE = 0.5, 4.0

#: The folder of the home with only the image's files.
_ONLY_OWN = "own"


class MountedFiles:
    """The files of a Volume that is mounted at a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()


class AirflowHomes:
    """The homes of this container, below ``root``, which is its own. They exist until the container ends."""

    def __init__(self, root: Path, mounted: Reader, remote: Reader, private_key: str, own: OwnHome = NO_HOME) -> None:
        """``mounted`` and ``remote`` are the same Volume: its mount, and the SDK's view of it. ``own`` is the
        image's part of a home."""
        self._root, self._mounted, self._remote, self._own = root, mounted, remote, own
        self._private_key = private_key
        self._homes: dict[str, AirflowHome] = {}
        self._lock = threading.Lock()

    def newest(self) -> AirflowHome | None:
        """Return the home that the next workload most likely needs; None if neither the mount nor the image has one.
        Makes no remote call, and raises nothing: a workload that needs it gets the error."""
        try:
            return self._make(likeliest(self._mounted) or _ONLY_OWN, (self._mounted,))
        except (HomeError, OSError) as error:
            log.warning("No Airflow home before the first workload: %s", describe(error))
            return None

    async def home_for(self, id: str) -> AirflowHome | None:
        """Return the home of a snapshot. For an empty id, it is the image's own, or None if there is none.

        Raises HomeError if the home cannot be had.
        """
        id = id or _ONLY_OWN
        if (known := self._homes.get(id)) is not None:
            return known
        return await asyncio.to_thread(self._make, id, (self._mounted, self._remote))

    def _make(self, id: str, readers: tuple[Reader, ...]) -> AirflowHome | None:
        if id == _ONLY_OWN and self._own.is_empty:
            return None
        with self._lock:
            if (known := self._homes.get(id)) is None:
                try:
                    found = (HomeSnapshot({}), {}) if id == _ONLY_OWN else self._fetched(id, readers)
                    known = self._homes[id] = self._written(id, *found)
                except OSError as error:
                    raise HomeError(
                        f"The Airflow home {id} could not be written to the container's disk: {words_of(error)}."
                    ) from error
            return known

    def _fetched(self, id: str, readers: tuple[Reader, ...]) -> tuple[HomeSnapshot, Mapping[str, bytes]]:
        *earlier, last = readers
        for reader in earlier:
            try:
                snapshot = snapshot_of(reader, id)
                return snapshot, contents_of(reader, snapshot)
            except (HomeError, OSError) as error:
                log.info("Airflow home %s is read from Modal: %s", id, describe(error))
        try:
            snapshot = _retried(lambda: snapshot_of(last, id))
            return snapshot, _retried(lambda: contents_of(last, snapshot))
        except FileNotFoundError as error:
            raise HomeError(
                f"The logs Volume does not have the Airflow home {id}: it was removed, or published for another app. "
                "Restart the scheduler to publish it again."
            ) from error

    def _written(self, id: str, snapshot: HomeSnapshot, contents: Mapping[str, bytes]) -> AirflowHome:
        sealed = {} if snapshot.sealed is None else unseal(snapshot.sealed, self._private_key)
        config = config_file(snapshot.settings, sealed, self._own.settings)
        folder = self._root / id
        unfinished = self._root / f".{uuid.uuid4().hex}"
        unfinished.mkdir(parents=True)
        try:
            file = unfinished / "airflow.cfg"
            file.touch(0o600)
            file.write_text(config.text, encoding="utf-8")
            for path, content in contents.items():
                target = unfinished / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                target.chmod(0o755 if snapshot.files.files[path].executable else 0o644)
            self._own.add_to(unfinished)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return AirflowHome(str(folder), config.variables)


def _retried(call: Callable[[], _T]) -> _T:
    """Call Modal, with a few retries; raise HomeError if it never answers."""
    backoff = Backoff(_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            return call()
        except (exception.Error, TimeoutError, ConnectionError) as error:
            pause = backoff.next()
            if backoff.failures == _TRIES:
                raise HomeError(f"Modal did not return the settings of the Airflow host: {describe(error)}") from error
            time.sleep(pause)
