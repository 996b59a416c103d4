"""Safe reading of containers' data, without running it.

Modal's SDK unpickles the values of Dicts and Queues and the results of function calls in the reading process. So a
writer could run code in the scheduler. Within ``plain_data_only()``, the SDK's unpickler builds strings, numbers, lists
and dicts. It refuses everything with an import of a name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from modalflow.errors import UntrustedDataError
from modalflow.support.replaced import replace
from modalflow.support.replaced_in_sdk import FIND_CLASS, LOAD, PERSISTENT_LOAD

_plain = ContextVar("modalflow_plain_data_only", default=False)
_lenient = ContextVar("modalflow_unreadable_data", default=False)
_installed = False


class Unreadable:
    """The stand-in for a value that cannot be read as plain data."""


UNREADABLE: Final = Unreadable()


@contextlib.contextmanager
def plain_data_only(*, lenient: bool = False) -> Iterator[None]:
    """Refuse any global in the SDK's unpickling for calls within the block. Other code is not affected.

    If ``lenient``, UNREADABLE takes the place of a refused value: of many values, the others can still be read.
    The mark is a context variable: asyncio and the SDK's own loop copy the caller's context with each call. A refusal
    arrives as the SDK's DeserializationError with an UntrustedDataError as its cause.
    """
    _install()
    token, of_lenient = _plain.set(True), _lenient.set(lenient)
    try:
        yield
    finally:
        _lenient.reset(of_lenient)
        _plain.reset(token)


def _install() -> None:
    """Make the SDK's unpickler obey the mark, once. It has no hook for this, so three methods are replaced."""
    global _installed
    if _installed:
        return
    original_find_class = FIND_CLASS.original()
    original_persistent_load = PERSISTENT_LOAD.original()
    original_load = LOAD.original()

    def find_class(self: Any, module: str, name: str) -> Any:
        if _plain.get():
            raise UntrustedDataError(f"Data from a container refers to {module}.{name}; expected plain data")
        return original_find_class(self, module, name)

    def persistent_load(self: Any, pid: Any) -> Any:
        if _plain.get():
            raise UntrustedDataError("Data from a container refers to a Modal object; expected plain data")
        return original_persistent_load(self, pid)

    def load(self: Any) -> Any:
        if not (_plain.get() and _lenient.get()):
            return original_load(self)
        try:
            return original_load(self)
        except Exception:  # noqa: BLE001  Any bytes may be there, and unpickling raises whatever they lead to.
            return UNREADABLE

    replace(FIND_CLASS, find_class)
    replace(LOAD, load)
    replace(PERSISTENT_LOAD, persistent_load)
    _installed = True
