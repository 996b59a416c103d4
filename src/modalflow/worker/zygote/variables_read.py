"""The variables read by the operator's code while a zygote imports it.

A workload with another value of one cannot be forked from this zygote: under LocalExecutor, the code would have read
its value.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modalflow.worker.environment import READ_LIVE, is_read_at_import

#: Variables with another value in each call or in each container: no import may keep them.
_NEVER = ("TMPDIR", "MODAL_", "MODALFLOW_")


class VariablesRead:
    """The names of variables read by code in a folder, or within ``everything``.

    Variables with a difference for every zygote (``is_read_at_import``) are not among them. A copy of the whole
    environment counts as reading all its variables, and not as a search for others.
    """

    def __init__(self, folder: str) -> None:
        self._folder = f"{folder}/"
        self._everything = False
        self.names: set[str] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record within the context."""
        kind: Any = type(os.environ)
        original = kind.__getitem__

        def __getitem__(environ: Any, name: Any) -> Any:
            if isinstance(name, str) and name not in self.names and self._counts(name):
                self.names.add(name)
            return original(environ, name)

        kind.__getitem__ = __getitem__
        try:
            yield
        finally:
            kind.__getitem__ = original

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Record all reads within the context."""
        self._everything = True
        try:
            yield
        finally:
            self._everything = False

    def _counts(self, name: str) -> bool:
        if is_read_at_import(name) or name in READ_LIVE or name.startswith(_NEVER):
            return False
        return self._everything or self._is_called_from_folder()

    def _is_called_from_folder(self) -> bool:
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._folder):
                return True
            frame = frame.f_back
        return False
