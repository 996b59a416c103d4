"""Blocking calls of the SDK, off the engine's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


async def in_daemon_thread(function: Callable[[], _T]) -> _T:
    """Run a blocking function in a daemon thread.

    Not asyncio.to_thread: a process waits at its exit for the threads of that pool, and connecting to a Modal that does
    not answer takes the SDK a minute.
    """
    outcome: Future[_T] = Future()
    # From here on it cannot be cancelled: who waits may go away, the thread goes on.
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  It is raised where it is awaited.
            outcome.set_exception(error)

    threading.Thread(target=run, name="modalflow-blocking", daemon=True).start()
    return await asyncio.wrap_future(outcome)
