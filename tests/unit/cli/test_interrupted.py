"""A command that is ended with Ctrl-C."""

from __future__ import annotations

import subprocess
import sys

_INTERRUPTED = """
import atexit, logging
from modalflow.cli.terminal.common import errors_in_a_line
atexit.register(lambda: logging.getLogger("asyncio").error("Task exception was never retrieved"))
with errors_in_a_line():
    raise KeyboardInterrupt
"""


def test_what_libraries_log_of_interrupted_work_is_not_shown() -> None:
    """Ctrl-C cuts off requests of the SDK, and their errors are logged while the process ends: none is shown."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
