"""The tasks on the engine's loop: one by one, or at most so many of a kind at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from modalflow.executor.reporting.loggers import logger
from modalflow.support.described import describe

log = logger(__name__)


class LoopTasks:
    """The tasks of one event loop. It outlives the engine's thread, as the loop does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self.broken: asyncio.Future[None] = loop.create_future()
        """Gets the exception that no loop survives, such as SystemExit, so that the engine's thread ends with it."""

    def restart(self) -> None:
        """Forget the tasks of a thread that has ended."""
        self._tasks = set()
        self.broken = self._loop.create_future()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine; log how it failed, if it does."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after so many seconds."""
        self._loop.call_later(seconds, function)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Exception):
            log.warning("A call to Modal failed: %s", describe(error))
        elif not self.broken.done():
            self.broken.set_exception(error)
            # The loop itself may raise it first; then no one else retrieves it.
            self.broken.exception()


class BoundedTasks:
    """Runs at most ``limit`` coroutines at once, in the order in which they are added.

    Without the limit, 10,000 outcomes would start 10,000 RPCs at once.
    """

    def __init__(self, limit: int, tasks: LoopTasks) -> None:
        self._limit = limit
        self._tasks = tasks
        self._waiting: deque[Coroutine[Any, Any, Any]] = deque()
        self._running = 0

    def __len__(self) -> int:
        return len(self._waiting) + self._running

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as soon as its turn comes."""
        self._waiting.append(coroutine)
        self._fill()

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after so many seconds, beside the limit."""
        self._tasks.later(seconds, function)

    def drop(self) -> None:
        """Close the coroutines that have not begun."""
        while self._waiting:
            self._waiting.popleft().close()

    def _fill(self) -> None:
        while self._waiting and self._running < self._limit:
            self._running += 1
            self._tasks.spawn(self._run(self._waiting.popleft()))

    async def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        finally:
            self._running -= 1
            self._fill()
