"""The logs Volume from Airflow's side: one folder per log, with one file for each run.

Reads and adds whole files. The worker writes its own files through the mount and never comes here. Blocks: call it off
the scheduler's thread.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import modal
from modal import exception

from modalflow.control_plane import ControlPlane
from modalflow.errors import CredentialsError
from modalflow.logs.log_format import log_line
from modalflow.names import DEPLOYMENT_FILE, Names, is_log_part, log_file, stored_log_path
from modalflow.protocol.messages import Deployment
from modalflow.support.described import words_of
from modalflow.support.text import one_line

#: Longest wait of a log's reader for Modal, in seconds.
READ_TIMEOUT = 20.0

#: How many parts of a log are downloaded at once.
_READERS = 4

#: Characters of cached logs, so repeated reads do not download a long log again.
KEPT_TEXT = 64 << 20

#: Seconds for which a text stays cached in any case. Otherwise, each read of a very long log would drop the beginning
#: of the next read.
_IN_USE = 60.0

#: Airflow writes the log of a trigger beside the task's; both are parts of one log here.
_TRIGGER_SUFFIX = re.compile(r"\.trigger\.(?P<job>\d+)\.log$")


@dataclass(frozen=True)
class Line:
    """A line in Airflow's structured log from the executor, or another small text, in its own file."""

    log_path: str
    """The log of a line; empty for another text."""
    name: str
    """The name of the file in the log's folder. For another text, its path on the Volume."""
    content: bytes

    @classmethod
    def now(cls, log_path: str, text: str, level: str) -> Line:
        """Return a line with the current time."""
        now = datetime.now(UTC)
        return cls(log_path, log_file(now, "executor"), log_line(level, text, "modalflow.executor", now))

    @property
    def path(self) -> str:
        """The path on the Volume."""
        return f"{stored_log_path(self.log_path)}/{self.name}" if self.log_path else self.name


class _Kept:
    """Cached texts of files. Size and time identify a text, because logs only grow."""

    def __init__(self) -> None:
        self._texts: dict[Hashable, tuple[str, float]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def get(self, mark: Hashable) -> str | None:
        with self._lock:
            text, _ = self._texts.pop(mark, (None, 0.0))
            if text is not None:
                self._texts[mark] = text, time.monotonic()  # In order of last use, the latest at the end.
            return text

    def put(self, mark: Hashable, text: str) -> None:
        with self._lock:
            if mark in self._texts:
                return  # Another reader read it at the same time.
            while self._texts and self._size + len(text) > KEPT_TEXT:
                oldest, (dropped, used_at) = next(iter(self._texts.items()))
                if time.monotonic() - used_at < _IN_USE:
                    return
                del self._texts[oldest]
                self._size -= len(dropped)
            self._texts[mark] = text, time.monotonic()
            self._size += len(text)


class LogVolume:
    """The logs of one worker app. Paths are Airflow's; ``stored_log_path`` maps them to the Volume."""

    def __init__(self, control_plane: ControlPlane, names: Names, *, create: bool = True) -> None:
        """``create`` is False for reading commands: a mistyped app must not create a Volume."""
        self.control_plane = control_plane
        self.name = names.logs
        self._kept = _Kept()
        self.volume = modal.Volume.from_name(names.logs, create_if_missing=create, version=2, **control_plane.scope())

    def read(self, log_path: str) -> tuple[list[str], list[str]]:
        """Return (sources, texts): the places and contents of a log's parts, oldest first. A missing or unreadable log
        is not an error; the sources name the missing parts. Raises CredentialsError if Modal rejects the credentials.
        """
        deadline = time.monotonic() + READ_TIMEOUT
        pool = ThreadPoolExecutor(_READERS, thread_name_prefix="modalflow-log-reader")
        sources: list[str] = []
        texts: list[str] = []
        rest = "the log"
        try:
            files = pool.submit(self._files, log_path).result(READ_TIMEOUT)
            if not files:
                return [self.no_log(log_path)], []
            for file, coming in [(file, pool.submit(self._text, file)) for file in files]:
                rest = f"the log from {file.path} on"
                texts.append(coming.result(max(0.0, deadline - time.monotonic())))
                if not is_log_part(file.path):
                    sources.append(one_line(f"modal://{self.name}/{file.path}"))
            return sources, texts
        except FutureTimeoutError:
            why = f"Modal did not answer within {READ_TIMEOUT:g} s; {rest} is on Volume {self.name}"
            return [*sources, why], texts
        except exception.AuthError as error:
            raise CredentialsError(
                f"Modal refused the credentials for the log on Volume {self.name}: {words_of(error)}"
            ) from error
        except (exception.Error, OSError) as error:
            return [*sources, one_line(f"Volume {self.name}: {rest} could not be read: {words_of(error)}")], texts
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def no_log(self, log_path: str) -> str:
        """Return the source in the result of ``read`` for a log without files."""
        return f"No log at {log_path} on Volume {self.name} yet"

    def _files(self, log_path: str) -> list[Any]:
        try:
            entries = self.volume.listdir(stored_log_path(log_path))
        except (exception.NotFoundError, FileNotFoundError):
            return []
        return sorted((entry for entry in entries if entry.type.name == "FILE"), key=lambda entry: str(entry.path))

    def _text(self, file: Any) -> str:
        mark = (file.path, file.size, file.mtime)
        text = self._kept.get(mark)
        if text is None:
            try:
                text = b"".join(self.volume.read_file(file.path)).decode("utf-8", "backslashreplace")
            except (exception.NotFoundError, FileNotFoundError):
                return ""  # Replaced by a newer one since the listing.
            self._kept.put(mark, text)
        return text

    def add(self, log_path: str, name: str, content: bytes) -> None:
        """Add a file to a log, or replace it."""
        with self.volume.batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(content), f"/{stored_log_path(log_path)}/{name}")

    def add_lines(self, lines: Sequence[Line]) -> None:
        """Add texts of the executor's, each in a file, with one upload."""
        with self.volume.batch_upload(force=True) as batch:
            for line in lines:
                batch.put_file(io.BytesIO(line.content), f"/{line.path}")

    def add_local_file(self, relative_path: str, content: bytes, host: str) -> None:
        """Add the local log file of a process on the Airflow host: a triggerer, or another executor's task."""
        trigger = _TRIGGER_SUFFIX.search(relative_path)
        name = f"trigger-{trigger['job']}" if trigger else "host"
        self.add(_TRIGGER_SUFFIX.sub("", relative_path), f"{name}-{host}.log", content)

    def deployment(self) -> Deployment | None:
        """Return the record of the deployed worker; None if there is none."""
        try:
            # A container can write to this Volume. Text outside UTF-8 is malformed, like other invalid JSON.
            return Deployment.from_json(b"".join(self.volume.read_file(DEPLOYMENT_FILE)).decode(errors="replace"))
        except (exception.NotFoundError, FileNotFoundError):
            return None

    def record(self, deployment: Deployment) -> None:
        """Store the record of the deployed worker."""
        with self.volume.batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(deployment.to_json().encode()), f"/{DEPLOYMENT_FILE}")
