"""Hints for users about image steps that were not executed, in logs and in errors that they explain.

Owns the texts, and their place in an exception from a container. The exception is never unpickled here.
"""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Sequence

from modal_proto import api_pb2

#: The number of steps in a hint, and of characters of each, so that a log line stays readable.
NAMED_STEPS = 8
STEP_CHARACTERS = 100

#: A failed import in the runtime's results: its ``repr`` (modal/_runtime/container_io_manager.py).
_FAILED_IMPORT = re.compile(r"(?:ModuleNotFoundError|ImportError)\((?P<message>.*)\)", re.DOTALL)


def unexecuted(missing: Sequence[str]) -> str:
    """Return a line with the steps; empty if there are none."""
    if not missing:
        return ""
    steps = [" ".join(step.split()) for step in dict.fromkeys(missing)]
    named = [step if len(step) <= STEP_CHARACTERS else f"{step[:STEP_CHARACTERS]}…" for step in steps[:NAMED_STEPS]]
    more = f"; and {len(steps) - NAMED_STEPS} more" if len(steps) > NAMED_STEPS else ""
    count = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    return f"the local control plane did not execute {count} of the image: {'; '.join(named)}{more}"


def explained(result: api_pb2.GenericResult, missing: Sequence[str]) -> api_pb2.GenericResult:
    """Return the result of a failed import with the unexecuted steps in its text; other results are unchanged."""
    hint = unexecuted(missing)
    match = _FAILED_IMPORT.fullmatch(result.exception)
    if not hint or result.status == api_pb2.GenericResult.GENERIC_STATUS_SUCCESS:
        return result
    if match is None and "ModuleNotFoundError" not in result.exception:
        return result
    hint = f"(Perhaps because {hint})"
    changed = api_pb2.GenericResult()
    changed.CopyFrom(result)
    changed.exception = f"{result.exception}\n{hint}"
    if result.traceback:
        changed.traceback = f"{result.traceback.rstrip()}\n{hint}\n"
    if match is not None and result.WhichOneof("data_oneof") == "data":
        changed.data = _with_message(result.data, f"{_message(match['message'])} {hint}".lstrip())
    return changed


def _message(written: str) -> str:
    """Return the message of an exception from its repr; empty if it is not a single text."""
    try:
        text = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return text if isinstance(text, str) else ""


def _with_message(pickled: bytes, message: str) -> bytes:
    """Return a pickled ImportError with another message in its attribute ``msg``.

    Opcodes are appended to set attributes of the object (``BUILD``, as in pickletools). The first of them is one byte
    long. It replaces the last opcode, because the frame has a fixed length.
    """
    if not pickled.endswith(pickle.STOP):
        return pickled
    key, text = b"msg", message.encode(errors="backslashreplace")
    return b"".join(
        (
            pickled[: -len(pickle.STOP)],
            pickle.EMPTY_DICT,
            pickle.BINUNICODE + len(key).to_bytes(4, "little") + key,
            pickle.BINUNICODE + len(text).to_bytes(4, "little") + text,
            pickle.SETITEM,
            pickle.BUILD,
            pickle.STOP,
        )
    )
