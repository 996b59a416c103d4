"""A blocking call with a time limit."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """Return the result of ``work``. Raises TimeoutError after the limit.

    It runs in a daemon thread, in a copy of the caller's context, and continues there after a timeout. A call of the
    SDK cannot be interrupted, and the end of the process must not wait for it.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001  It is raised in the caller.
            outcome.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="modalflow-blocking", daemon=True).start()
    return outcome.result(seconds)
