"""The commits that publish the logs of what runs in this container.

Everything here bears a Volume that fails: a log that cannot be published is never the reason for a workload to fail.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from modalflow.support.described import describe
from modalflow.worker.logs.segments import Segment

log = logging.getLogger(__name__)

#: Seconds between two commits while something writes. A slow commit is waited out for as long again as it took, but
#: not so long that a line written in the meantime would be older than ``OLDEST_LINE`` when it can be read.
COMMIT_INTERVAL = 1.0

#: Seconds that a line may be old when it is published. A commit lacks what was written after it began, so a line
#: may wait for one commit, a pause and another commit: this holds while a commit takes less than half of it.
OLDEST_LINE = 9.0

#: Seconds that one commit may take before it is given up.
COMMIT_TIMEOUT = 60.0

#: How often the last commit of a segment is tried.
_LAST_COMMIT_TRIES = 3


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
                log.warning("The logs Volume could not be committed: %s", describe(error))
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
                pause = pause_after(time.monotonic() - started, self._interval)

    async def _unwatched_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._unwatched.wait()
        except TimeoutError:
            return False
        return True


def pause_after(took: float, interval: float) -> float:
    """Seconds until the next commit, of one that took so long."""
    return max(interval, min(took, OLDEST_LINE - 2 * took))
