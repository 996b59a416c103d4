"""Running a function in a forked child of this process, for tests of what a fork leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

#: What a child may take on a loaded machine. A child that inherited something dead takes minutes.
CHILD_SECONDS = 20.0


def in_child(function: Callable[[], Any], seconds: float = CHILD_SECONDS) -> Any:
    """Return what the function returned in a forked child (as JSON); AssertionError if it raised or took too long."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(function, writing)
    os.close(writing)
    try:
        return _answer(reading, seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_child(function: Callable[[], Any], writing: int) -> None:
    try:
        answer = {"returned": function()}
    except BaseException:  # noqa: BLE001  The parent raises it.
        answer = {"raised": traceback.format_exc()}
    try:
        os.write(writing, json.dumps(answer).encode())
        sys.stderr.flush()
    finally:
        # The end of a test process: neither pytest's nor the SDK's exit handlers are the child's.
        os._exit(0)


def _answer(reading: int, seconds: float) -> Any:
    if not select.select([reading], [], [], seconds)[0]:
        raise AssertionError(f"the child did not answer within {seconds:g} s")
    answer = json.loads(os.read(reading, 1 << 16) or b'{"raised": "the child ended without an answer"}')
    assert "raised" not in answer, f"in the child:\n{answer['raised']}"
    return answer["returned"]
