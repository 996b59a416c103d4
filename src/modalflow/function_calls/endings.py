"""The exceptions of Modal's SDK with the status of a function call."""

from __future__ import annotations

from typing import Final

from modal import exception

#: They report the status of a function call, rather than a failure to ask for it. The builtin TimeoutError means that
#: it has not ended.
ENDINGS: Final = (
    exception.OutputExpiredError,
    exception.FunctionTimeoutError,
    exception.NotFoundError,
    TimeoutError,
    exception.InternalFailure,
    exception.DeserializationError,
    exception.RemoteError,
    exception.ExecutionError,
)


def is_pending(error: BaseException) -> bool:
    """Return whether one of ENDINGS means that the function call has not ended."""
    # The SDK's own TimeoutErrors are no builtin ones.
    return isinstance(error, TimeoutError)
