"""Blocking calls of the SDK, off the engine's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


async def in_daemon_thread(function: Callable[[], _T]) -> _T:
    """Run a blocking function in a daemon thread, and return what it returns.

    Not asyncio.to_thread: a process waits for the threads of that pool when it exits, and the SDK takes a minute to
    connect to a Modal that does not answer.
    """
    outcome: Future[_T] = Future()
    # From here on it cannot be cancelled: the thread goes on even if no one waits any more.
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  It is raised where the result is awaited.
            outcome.set_exception(error)

    threading.Thread(target=run, name="modalflow-blocking", daemon=True).start()
    return await asyncio.wrap_future(outcome)
