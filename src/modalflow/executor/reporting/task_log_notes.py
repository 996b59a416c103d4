"""What the executor adds to the logs of workloads: why they wait, and why they ended.

Owns a bounded queue of lines and one loop that writes them, many with one upload: ten thousand tasks that fail together
must not be ten thousand uploads. What is said before there is a connection waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.loggers import logger
from modalflow.logs.log_volume import Line
from modalflow.support.described import describe

if TYPE_CHECKING:
    from modalflow.executor.lifecycle.tracker import Link

log = logger(__name__)

#: Lines of one upload, and lines that wait; the oldest give way, and are in the scheduler's own log.
AT_ONCE = 200
KEPT = 10_000
#: Seconds in which lines that come together become one upload, between two tries, and that one upload may take.
GATHER = 0.05
PAUSE = 5.0
UPLOAD_TIMEOUT = 60.0
#: How often a batch is tried while Modal answers with an error of its own.
TRIES = 3


class Notes:
    """Lines on their way to the logs Volume."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[Line] = deque(maxlen=KEPT)
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, log_path: str, text: str, level: str = "error") -> None:
        """Add a line to a log, soon."""
        self._waiting.append(Line.now(log_path, text, level))
        self._idle.clear()
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled."""
        tries = 0
        while True:
            if not self._waiting:
                self._idle.set()
                self._news.clear()
                await self._news.wait()
            await asyncio.sleep(GATHER)
            remote = self._link.remote
            if remote is None:
                await asyncio.sleep(PAUSE / 5)
                continue
            lines = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                async with asyncio.timeout(UPLOAD_TIMEOUT):
                    await in_daemon_thread(lambda lines=lines, logs=remote.logs: logs.add_lines(lines))  # type: ignore[misc]
                tries = 0
            except FAILURES as error:
                tries += 1
                remote.heard(error)
                log.warning("%s lines could not be added to logs yet (%s)", len(lines), describe(error))
                if tries < TRIES or remote.passes(error):
                    self._waiting.extendleft(reversed(lines[: KEPT - len(self._waiting)]))
                    await asyncio.sleep(PAUSE)

    async def written(self, seconds: float) -> None:
        """Wait until everything is written, but no longer than that."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%s lines were not added to logs", len(self._waiting))
