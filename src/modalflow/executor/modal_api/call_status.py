"""Modal's status of a function call, read from what the SDK raises. Pure.

The SDK has one exception for most ends, ``RemoteError``. Which end it was is only in its message, which Modal may
change. So the message chooses the advice that a reader gets, and is always passed on, but decides nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modal import exception

from modalflow.reasons import Cause
from modalflow.support.described import describe
from modalflow.support.text import clean


@dataclass(frozen=True)
class CallStatus:
    """The status of a function call."""

    ended: bool
    reason: str = ""
    """How it ended, in Modal's words; empty if it has not ended, if it returned, and if Modal gives no reason."""
    cause: Cause = Cause.NO_OUTCOME


PENDING = CallStatus(ended=False)
RETURNED = CallStatus(ended=True)

#: The first that matches counts: a container that was killed for its memory crashed as well.
_WORDS: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (re.compile(r"out of memory|\boom\b|memory limit|exceeded.{0,20}memory", re.I), Cause.OUT_OF_MEMORY),
    (re.compile(r"app\b.{0,60}\b(stopped|over)\b|stopped app", re.I), Cause.APP_STOPPED),
    (
        re.compile(
            r"before it took an input|cannot run here|startup|ImportError|ModuleNotFoundError|crash.?loop", re.I
        ),
        Cause.NOT_STARTABLE,
    ),
    (re.compile(r"cancell?ed|terminated", re.I), Cause.CANCELLED),
    (re.compile(r"preempt", re.I), Cause.CONTAINER_STOPPED),
    (re.compile(r"exited with (signal|code)|crashed|killed|container", re.I), Cause.CONTAINER_LOST),
)

#: Characters of a message that are passed on, its last ones: a traceback has the error at its end.
_LONGEST = 1500
#: Characters of a message that are searched, its last ones.
_READ = 1 << 16


def call_status_of(error: BaseException) -> CallStatus:
    """Return the status that one of ENDINGS reports."""
    if isinstance(error, exception.OutputExpiredError):
        return CallStatus(True, "", Cause.OUTPUT_EXPIRED)
    if isinstance(error, exception.FunctionTimeoutError):
        started = "did not start" not in str(error)
        return CallStatus(True, str(error), Cause.FUNCTION_TIMEOUT if started else Cause.NOT_STARTABLE)
    if isinstance(error, exception.NotFoundError):
        return CallStatus(True, str(error), Cause.CALL_UNKNOWN)
    if isinstance(error, TimeoutError):
        return PENDING
    if isinstance(error, exception.InternalFailure):
        return CallStatus(True, str(error), Cause.MODAL_FAILURE)
    if isinstance(error, exception.DeserializationError):
        # No worker returns such a value, but it is enough to know that the call returned.
        return RETURNED
    words = str(error)
    if not words and isinstance(error, exception.RemoteError):
        # This is how a call ends that a container reports as cancelled itself (GENERIC_STATUS_TERMINATED).
        return CallStatus(True, "", Cause.CANCELLED)
    words = words[-_READ:] or describe(error)
    for pattern, cause in _WORDS:
        if pattern.search(words):
            return CallStatus(True, _short(words), cause)
    return CallStatus(True, _short(words), Cause.OTHER)


def _short(words: str) -> str:
    words = words.strip()
    return clean(words if len(words) <= _LONGEST else "…" + words[-_LONGEST:])
