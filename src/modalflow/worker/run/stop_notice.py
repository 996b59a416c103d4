"""The notice that this container is being stopped: then the executor reports the task's failure, not its supervisor.

Airflow's supervisor would report a task that SIGTERM has ended as failed, or as up for retry, and use a retry. The
executor knows why the container was stopped, and may have the task run again without one. Everything except a failure
is still reported here.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from modalflow.airflow_compat import replaced as rows
from modalflow.support.replaced import replace
from modalflow.worker.zygote.protocol import STOP_NOTICE

if TYPE_CHECKING:
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess

_FAILURES = frozenset({"failed", "up_for_retry"})


class StopNotice:
    """Whether the notice has arrived in this process, that of a supervisor."""

    def __init__(self) -> None:
        self._arrived = False

    def listen(self) -> None:
        """Accept the notice from now on, and end a task that fails after it.

        The task has run its ``on_kill()`` by then. Its failure callbacks and listeners must not run: it may not count
        as failed.
        """
        signal.signal(STOP_NOTICE, self._on_notice)
        os.register_at_fork(after_in_child=_forget)
        original = rows.HANDLE_REQUEST.original()
        notice = self

        def _handle_request(self: ActivitySubprocess, msg: Any, *args: Any, **kwargs: Any) -> Any:
            if not notice.withholds(getattr(msg, "state", None)):
                return original(self, msg, *args, **kwargs)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            return None

        replace(rows.HANDLE_REQUEST, _handle_request)

    def withholds(self, state: object) -> bool:
        """Return whether this state of the task is left to the executor."""
        return self._arrived and str(getattr(state, "value", state)) in _FAILURES

    def _on_notice(self, _number: int, _frame: object) -> None:
        self._arrived = True


def _forget() -> None:
    # A fork of another thread's may not set handlers.
    with contextlib.suppress(ValueError):
        signal.signal(STOP_NOTICE, signal.SIG_DFL)
