"""The commits that publish the logs of everything that runs in this container.

A failing Volume never raises here: a log that cannot be published must not fail a workload.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from modalflow.support.described import describe
from modalflow.worker.logs.log_files import CallLog

log = logging.getLogger(__name__)

#: Seconds between two commits while something writes. After a slow commit, the pause is as long as the commit was, but
#: short enough that a line written meanwhile is at most ``OLDEST_LINE`` old when it can be read.
COMMIT_INTERVAL = 1.0

#: Seconds that a line may be old when it is published. A commit lacks lines that were written after it began. Such a
#: line may wait for one commit, a pause and another commit: the limit holds while a commit takes less than half of it.
OLDEST_LINE = 9.0

#: Seconds after which a commit is given up.
COMMIT_TIMEOUT = 60.0

#: The most attempts at the last commit of a log.
_LAST_COMMIT_TRIES = 3


class LogPublisher:
    """A publisher of the logs Volume: repeatedly while a watched log grows, and finally once more.

    One commit publishes the whole Volume, so all function calls of the container share their commits.
    """

    def __init__(
        self,
        commit: Callable[[], Awaitable[object]],
        *,
        before: Callable[[], object] | None = None,
        interval: float = COMMIT_INTERVAL,
    ) -> None:
        """``before`` writes what else the commits of growing logs may publish. It must not raise."""
        self._commit = commit
        self._before = before
        self._interval = interval
        self._lock = asyncio.Lock()
        self._begun = 0
        self._done = 0
        self._watched: dict[CallLog, int] = {}
        self._unwatched = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, call_log: CallLog) -> Iterator[None]:
        """Publish a log as it grows."""
        self._watched[call_log] = 0
        self._unwatched.clear()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._publish_while_watched())
        try:
            yield
        finally:
            del self._watched[call_log]
            if not self._watched:
                # The loop is not cancelled: the result of a commit that is abandoned half-way is unknown.
                self._unwatched.set()

    async def publish(self) -> bool:
        """Publish everything that was written before this call; return whether it worked."""
        wanted = self._begun + 1
        for attempt in range(_LAST_COMMIT_TRIES):
            if attempt:
                await asyncio.sleep(self._interval * attempt)
            if await self._commit_number(wanted):
                return True
        return False

    async def _commit_number(self, wanted: int, *, before: Callable[[], object] | None = None) -> bool:
        """Ensure that at least commit number ``wanted`` is done, by this caller or by an earlier one.

        ``before`` is called if this caller commits, and no commit runs meanwhile.
        """
        async with self._lock:
            if self._done >= wanted:
                return True
            self._begun += 1
            number = self._begun
            if before is not None:
                before()
            try:
                async with asyncio.timeout(COMMIT_TIMEOUT):
                    await self._commit()
            except Exception as error:  # noqa: BLE001  Whatever is wrong with a Volume, the work goes on.
                log.warning("The logs Volume could not be committed: %s", describe(error))
                return False
            self._done = number
            return True

    async def _publish_while_watched(self) -> None:
        pause = self._interval
        while not await self._unwatched_within(pause):
            pause = self._interval
            sizes = {call_log: call_log.size() for call_log in self._watched}
            if sizes != self._watched:
                started = time.monotonic()
                if await self._commit_number(self._begun + 1, before=self._before):
                    self._watched.update({each: size for each, size in sizes.items() if each in self._watched})
                pause = pause_after(time.monotonic() - started, self._interval)

    async def _unwatched_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._unwatched.wait()
        except TimeoutError:
            return False
        return True


def pause_after(took: float, interval: float) -> float:
    """Return the seconds until the next commit, after one that took ``took`` seconds."""
    return max(interval, min(took, OLDEST_LINE - 2 * took))
