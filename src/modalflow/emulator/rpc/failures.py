"""Exceptions in handlers: each becomes a status that the SDK raises at once, with a text that can be sent.

Owns the translation of exceptions into gRPC statuses, and the limits on their texts. A handler raises GRPCError on
purpose.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from grpclib import GRPCError, Status

from modalflow.emulator.rpc.wire import sendable

log = logging.getLogger(__name__)

#: The status for an unexpected exception. The SDK repeats a call after INTERNAL and UNKNOWN
#: (RETRYABLE_GRPC_STATUS_CODES in modal/_utils/grpc_utils.py), some calls without end (``max_retries=None`` in
#: modal/parallel_map.py and in the container runtime), and a repeated call may find half of the effects of the first.
#: DATA_LOSS is the one status for a server error that the SDK raises at once and never catches itself.
FAILED = Status.DATA_LOSS

#: The most bytes in the text of a status. An HTTP/2 header holds it percent-encoded (3 bytes each), and again among the
#: details; a client refuses more than 65,536 bytes of headers (hpack's DEFAULT_MAX_HEADER_LIST_SIZE).
LONGEST_MESSAGE = 8_000


@contextmanager
def surfaced(name: str) -> Iterator[None]:
    """Turn every exception of the block into a GRPCError; ``name`` is the RPC.

    Two kinds pass unchanged: KeyboardInterrupt, and the cancellation of the task itself, whose caller is gone. If
    something that the handler waits for is cancelled, that is a failure: without an answer the caller would wait
    forever.
    """
    try:
        yield
    except GRPCError as error:
        raise _cut(error) from error.__cause__
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if _ends_this_task(error):
            raise
        log.exception("%s failed", name)
        raise GRPCError(FAILED, _cut_text(f"{name} failed in the local control plane: {described(error)}")) from error


def described(error: BaseException) -> str:
    """Return the type and the text of an exception, even if its ``__str__`` fails."""
    return "".join(traceback.format_exception_only(error)).strip()


def _ends_this_task(error: BaseException) -> bool:
    if isinstance(error, GeneratorExit):
        # A closed coroutine has no running loop; one that raises GeneratorExit itself has one.
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    return task is not None and task.cancelling() > 0


def _cut(error: GRPCError) -> GRPCError:
    return GRPCError(error.status, _cut_text(error.message or ""), error.details)


def _cut_text(text: str) -> str:
    encoded = sendable(text).encode()
    if len(encoded) <= LONGEST_MESSAGE:
        return encoded.decode()
    return encoded[: LONGEST_MESSAGE - len("…".encode())].decode(errors="ignore") + "…"
