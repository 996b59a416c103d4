"""Hints for users about image steps that were not executed, in logs and in errors that they explain.

Owns the words, and how they get into an exception that a container sends: nothing of that is unpickled here.
"""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Sequence

from modal_proto import api_pb2

#: Steps that are named, and characters of each: a line in a log has to be read.
NAMED_STEPS = 8
STEP_CHARACTERS = 100

#: How the runtime puts a failed import into a result: its ``repr`` (modal/_runtime/container_io_manager.py).
_FAILED_IMPORT = re.compile(r"(?:ModuleNotFoundError|ImportError)\((?P<message>.*)\)", re.DOTALL)


def unexecuted(missing: Sequence[str]) -> str:
    """Name the steps in a line; empty if there are none."""
    if not missing:
        return ""
    steps = [" ".join(step.split()) for step in dict.fromkeys(missing)]
    named = [step if len(step) <= STEP_CHARACTERS else f"{step[:STEP_CHARACTERS]}…" for step in steps[:NAMED_STEPS]]
    more = f"; and {len(steps) - NAMED_STEPS} more" if len(steps) > NAMED_STEPS else ""
    count = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    return f"the local control plane did not execute {count} of the image: {'; '.join(named)}{more}"


def explained(result: api_pb2.GenericResult, missing: Sequence[str]) -> api_pb2.GenericResult:
    """Return the result of a failed import with the steps that were not executed in its text, any other as it is."""
    hint = unexecuted(missing)
    match = _FAILED_IMPORT.fullmatch(result.exception)
    if not hint or result.status == api_pb2.GenericResult.GENERIC_STATUS_SUCCESS:
        return result
    if match is None and "ModuleNotFoundError" not in result.exception:
        return result
    hint = f"(Perhaps because {hint})"
    said = api_pb2.GenericResult()
    said.CopyFrom(result)
    said.exception = f"{result.exception}\n{hint}"
    if result.traceback:
        said.traceback = f"{result.traceback.rstrip()}\n{hint}\n"
    if match is not None and result.WhichOneof("data_oneof") == "data":
        said.data = _with_message(result.data, f"{_message(match['message'])} {hint}".lstrip())
    return said


def _message(written: str) -> str:
    """Return the text that an exception was made with, read off its repr; empty if it is not a text alone."""
    try:
        text = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return text if isinstance(text, str) else ""


def _with_message(pickled: bytes, message: str) -> bytes:
    """Return a pickled ImportError as it is unpickled with another message, which is its attribute ``msg``.

    The added opcodes set attributes of the object (``BUILD``, as in pickletools). The first of them is one byte long:
    it replaces the last one, in a frame with its own length.
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
