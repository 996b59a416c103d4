"""The folder for temporary files that a function call has to itself: what is left there is gone with it.

Must not fail work for want of such a folder.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

log = logging.getLogger(__name__)

#: Where programs look for the folder, Python's tempfile among them.
_VARIABLE = "TMPDIR"


@contextmanager
def scratch(env: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Add the folder to the variables of what is run meanwhile, unless they name one; remove it in a thread after."""
    if _VARIABLE in env:
        yield env
        return
    try:
        folder = tempfile.mkdtemp(prefix="modalflow-scratch-")
    except OSError as error:
        log.warning("There is no folder for temporary files: %s", error)
        yield env
        return
    try:
        yield {**env, _VARIABLE: folder}
    finally:
        # Not waited for: the outcome is not to be held up by a million files.
        asyncio.get_running_loop().run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))
