"""The outcome of a function call: its value, or the reason for its failure in words for users. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modal import exception

from modalflow.function_calls.endings import is_pending
from modalflow.function_calls.plain_result import EXPECTED
from modalflow.support.described import describe, words_of
from modalflow.support.text import QUOTE, clean

#: The SDK's words before the traceback of an exception that it does not rebuild.
_TRACEBACK = "Here is the remote traceback:\n"
#: Characters of a remote traceback in the log, its last ones: the error is at its end.
_LONGEST = 100_000


@dataclass(frozen=True)
class Outcome:
    """The state of a function call."""

    ended: bool = True
    value: Any = None
    """The result; None if it failed."""
    failure: str = ""
    """Why it failed, with advice; empty if it returned."""
    traceback: str = ""
    """The traceback in the container; empty if the Function raised nothing."""
    is_readable: bool = True
    """False if it returned a value other than plain data. Then ``failure`` has the advice."""


PENDING = Outcome(ended=False)

_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (
        exception.OutputExpiredError,
        "Modal has no result of it: it ended more than seven days ago, or the id or the workspace of the credentials "
        "is wrong.",
    ),
    (
        exception.FunctionTimeoutError,
        "It took longer than its Function's timeout ({error}). Raise `timeout=` of the Function, or give it less work.",
    ),
    (
        exception.NotFoundError,
        "Modal does not know it ({error}). Check the id, and that the credentials are of the workspace with the call.",
    ),
    (exception.InternalFailure, "Modal failed to run it ({error}). Run it again; `retries` of the task does so."),
)


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome for one of ENDINGS, as raised by the SDK for a function call."""
    if is_pending(error):
        return PENDING
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return Outcome(failure=advice.format(error=clean(words_of(error), QUOTE)))
    if isinstance(error, exception.DeserializationError):
        cause = clean(words_of(error.__cause__ or error), QUOTE)
        return Outcome(failure=f"Its result cannot be read ({cause}). {EXPECTED}", is_readable=False)
    return _raised(error)


def _raised(error: BaseException) -> Outcome:
    words, found, traceback = _text(error).partition(_TRACEBACK)
    if found:
        traceback = clean(traceback.strip()[-_LONGEST:], _LONGEST)
        last = traceback.rpartition("\n")[2]
        return Outcome(failure=f"The Function raised {last or 'an exception'}.", traceback=traceback)
    if not words:
        # This is how a call ends that its container reports as cancelled.
        return Outcome(failure="It was cancelled by Airflow, with Modal's SDK, or in Modal's dashboard.")
    return Outcome(failure=f"It failed on Modal: {clean(words[-QUOTE:], QUOTE).rstrip('.')}.")


def _text(error: BaseException) -> str:
    text = str(error).strip()
    return text if text or isinstance(error, exception.RemoteError) else describe(error)
