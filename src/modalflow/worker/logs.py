"""The logs of what runs in this container: one segment file per function call, and the commits that publish them.

Everything here bears a Volume that fails: a log that cannot be published is never the reason for a workload to fail.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from modalflow.errors import MalformedMessageError

log = logging.getLogger(__name__)

#: Seconds between two commits while something writes. A slow commit is waited out for as long again as it took.
COMMIT_INTERVAL = 1.0

#: Seconds that one commit may take before it is given up.
COMMIT_TIMEOUT = 60.0

#: How often the last commit of a segment is tried.
_LAST_COMMIT_TRIES = 3

_LOGGER = "modalflow.worker"


class Segment:
    """The part of a log that one function call writes, as a file of its own.

    Its lines are Airflow's structured log lines, or whatever a raw command printed.
    """

    def __init__(self, root: Path, log_path: str, function_call_id: str) -> None:
        folder = PurePosixPath(log_path)
        if not log_path.strip("/.") or folder.is_absolute() or ".." in folder.parts:
            raise MalformedMessageError(f"A submission's log_path is {log_path!r}; expected a folder below the Volume")
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = root / folder / f"{started}-{function_call_id}.log"

    def open(self, event: str, **context: Any) -> None:
        """Create the file, with a first line that tells where this is running."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write("info", event, context)

    def error(self, event: str) -> None:
        """Add a line of level error, whatever state the file was left in; make the file if there is none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write("error", event, {})

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _write(self, level: str, event: str, context: dict[str, Any]) -> None:
        timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        entry = {"timestamp": timestamp, "level": level, "event": event, "logger": _LOGGER, **context}
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self.path.open("a+b") as file:
            if not _ends_with_newline(file.fileno()):
                line = b"\n" + line
            # One write, so that lines of a process that still writes do not get into this one.
            os.write(file.fileno(), line)


def _ends_with_newline(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


class Commits:
    """Publishes the Volume: again and again while a watched segment grows, and once more for good.

    One commit publishes the whole Volume, so all function calls of the container share theirs.
    """

    def __init__(self, commit: Callable[[], Awaitable[object]], *, interval: float = COMMIT_INTERVAL) -> None:
        self._commit = commit
        self._interval = interval
        self._lock = asyncio.Lock()
        self._begun = 0
        self._done = 0
        self._watched: dict[Segment, int] = {}
        self._unwatched = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, segment: Segment) -> Iterator[None]:
        """Publish a segment as it grows."""
        self._watched[segment] = 0
        self._unwatched.clear()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._publish_while_watched())
        try:
            yield
        finally:
            del self._watched[segment]
            if not self._watched:
                # The loop is not cancelled: nobody knows what becomes of a commit that is given up half-way.
                self._unwatched.set()

    async def publish(self) -> bool:
        """Publish all that was written before this call; return whether it worked."""
        wanted = self._begun + 1
        for attempt in range(_LAST_COMMIT_TRIES):
            if attempt:
                await asyncio.sleep(self._interval * attempt)
            if await self._commit_number(wanted):
                return True
        return False

    async def _commit_number(self, wanted: int) -> bool:
        """Have at least commit number ``wanted`` done: by oneself, or by whoever came first."""
        async with self._lock:
            if self._done >= wanted:
                return True
            self._begun += 1
            number = self._begun
            try:
                async with asyncio.timeout(COMMIT_TIMEOUT):
                    await self._commit()
            except Exception as error:  # noqa: BLE001  Whatever a Volume's trouble is, the work goes on.
                log.warning("The logs Volume could not be committed: %r", error)
                return False
            self._done = number
            return True

    async def _publish_while_watched(self) -> None:
        pause = self._interval
        while not await self._unwatched_within(pause):
            pause = self._interval
            sizes = {segment: segment.size() for segment in self._watched}
            if sizes != self._watched:
                started = time.monotonic()
                if await self._commit_number(self._begun + 1):
                    self._watched.update({s: size for s, size in sizes.items() if s in self._watched})
                pause = max(pause, time.monotonic() - started)

    async def _unwatched_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._unwatched.wait()
        except TimeoutError:
            return False
        return True
