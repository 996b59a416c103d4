"""What a caller gets if a handler raises: a status that the SDK raises at once, with text that can be sent.

Owns the translation of exceptions into gRPC statuses, and what the text of a status may be. Which exceptions a handler
raises on purpose is its service's.
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

#: The status for an exception that no handler raises on purpose. The SDK sends a call again after INTERNAL and UNKNOWN
#: (RETRYABLE_GRPC_STATUS_CODES in modal/_utils/grpc_utils.py), some calls without end (``max_retries=None`` in
#: modal/parallel_map.py and in the container runtime), and a repetition may find half of the first one's effects. Of
#: the statuses that stand for a fault of the server it raises this one at once, and no code of its own catches it.
FAILED = Status.DATA_LOSS

#: Bytes of a status's text. It travels in an HTTP/2 header, percent-encoded (3 bytes for each) and once more among the
#: details, and a client refuses more than 65,536 bytes of headers (hpack's DEFAULT_MAX_HEADER_LIST_SIZE).
LONGEST_MESSAGE = 8_000


@contextmanager
def surfaced(name: str) -> Iterator[None]:
    """Turn whatever is raised within the block into a GRPCError; ``name`` is the RPC.

    Two kinds pass unchanged: the cancellation of the task itself, whose caller is gone, and KeyboardInterrupt. A
    cancellation of something that the handler waited for is a failure like any other: without an answer its caller
    would wait forever.
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
    """Return the type and the text of an exception, also of one whose text cannot be had."""
    return "".join(traceback.format_exception_only(error)).strip()


def _ends_this_task(error: BaseException) -> bool:
    if isinstance(error, GeneratorExit):
        # A coroutine that is closed has no running loop; one that raises GeneratorExit by itself has.
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
