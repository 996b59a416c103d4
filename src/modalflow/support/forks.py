"""Reset of a forked process: the one place with knowledge of process-wide state in modalflow and Modal's SDK.

A forked child has its parent's memory and none of its threads. The SDK's state there (default client, HTTP session,
event loop of its thread, locks of other threads) waits for missing threads. Worse, the child shares the epoll instance
of its parent's event loop. If the child closes a connection, it removes it from the *parent's* event loop, and the
parent waits forever for an answer on it.

So a child never runs and never finalizes inherited objects. The import of this module installs the hooks. It imports
nothing of the SDK, and covers an SDK imported before or after it. A hook must not raise: Python would print the error
and continue with the rest of the child.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from importlib import import_module
from typing import Any, TypeVar

from modalflow.support import replaced_in_sdk as rows
from modalflow.support.replaced import ReplacedName, assign

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_inherited: list[Any] = []
"""Objects kept by a child for its whole life, so that no finalizer of them runs."""

_loop_before: Any = None
"""The event loop of the SDK's thread at the last fork; the SDK's own hook forgets it before ours runs."""

_per_process: weakref.WeakValueDictionary[int, PerProcess[Any, Any]] = weakref.WeakValueDictionary()


class PerProcess(dict[_K, _V]):
    """A dict for connections, threads and locks. It empties itself in a forked child."""

    def __init__(self) -> None:
        super().__init__()
        _per_process[id(self)] = self


def renew() -> None:
    """Make the SDK usable if this process inherited a used one before modalflow was imported.

    Without the hook, nothing has cleaned up. A sign is an HTTP session on another event loop than the SDK's.
    """
    registry = _sdk("modal._utils.http_utils", "ClientSessionRegistry")
    session = getattr(registry, "_client_session", None)
    if not getattr(registry, "_client_session_active", False) or session is None:
        return
    if getattr(session, "_loop", None) is not _loop_of_sdk():
        _forget_state_of_sdk()


#: The SDK's imports at its first calls and transfers. In 1.5.0, the second one does not exist.
_IMPORTED_LATE = ("aiohttp", "modal._utils.proxy_support", "modal._utils.bytes_io_segment_payload", "certifi")


def import_ahead() -> None:
    """Import the later imports of the SDK on its own thread.

    If a child is forked during another thread's import, it waits forever for the lock of that module. Call this before
    a process both uses the SDK and forks, as a scheduler with LocalExecutor beside ModalExecutor does.
    """
    for module in _IMPORTED_LATE:
        with contextlib.suppress(ImportError):
            import_module(module)


# --- hooks ---


def _before() -> None:
    # Not taken away in the parent: another thread may be between this and its own fork.
    global _loop_before
    _loop_before = _loop_of_sdk()


def _after_in_child() -> None:
    global _loop_before
    loop, _loop_before = _loop_before, None
    if loop is not None:
        _retire(loop)
    _forget_state_of_sdk()
    for mine in list(_per_process.values()):
        _inherited.extend(mine.values())
        mine.clear()


def _retire(loop: Any) -> None:
    """Turn an inherited event loop into a closed one, without changes to its parts shared with the parent.

    ``loop.close()`` would remove the loop's own pipe from the shared epoll instance, and refuses a running loop. If a
    loop counts as closed, its transports do not touch the selector.
    """
    _inherited.append(loop)
    selector = getattr(loop, "_selector", None)
    if selector is None:
        return  # Not asyncio's own loop, such as uvloop's. We can only prevent its finalization.
    loop.set_exception_handler(_ignored)
    loop._closed = True
    # This closes the child's file descriptor of the epoll instance. The parent has its own.
    selector.close()


def _ignored(loop: Any, context: dict[str, Any]) -> None:
    """Replace the loop's warning about an unclosed connection: here all are unclosed."""


# --- the SDK ---


def _forget_state_of_sdk() -> None:
    for row, fresh in _STATE_OF_SDK:
        holder = row.owner_if_loaded()
        # An SDK without the name has no such state: it differs between versions.
        if holder is not None and hasattr(holder, row.attribute):
            _inherited.append(getattr(holder, row.attribute))
            assign(row, holder, fresh())
    # Other modules have imported this one by name.
    environments = _sdk("modal._environments", "ENVIRONMENT_CACHE")
    if environments is not None:
        _inherited.extend(environments.values())
        environments.clear()


def _nothing() -> None:
    return None


def _no_output() -> Any:
    return _sdk("modal._output.manager", "_DISABLED_OUTPUT_MANAGER")


_STATE_OF_SDK: tuple[tuple[ReplacedName, Callable[[], Any]], ...] = (
    (rows.DEFAULT_CLIENT, _nothing),
    (rows.DEFAULT_CLIENT_LOCK, _nothing),
    (rows.HTTP_SESSION, _nothing),
    (rows.HTTP_SESSION_ACTIVE, bool),
    (rows.HTTP_UNREGISTER, _nothing),
    (rows.OUTPUT_MANAGER, _no_output),
    (rows.PICKLE_LOCK, threading.Lock),
)
"""The state of modal 1.5.0 to 1.6.4, with a function for each name's new value."""


def _sdk(module: str, name: str) -> Any:
    """Return an object of the SDK; None if the SDK is not imported or lacks it. ``""`` names the module itself."""
    loaded = sys.modules.get(module)
    return getattr(loaded, name, None) if name else loaded


def _loop_of_sdk() -> Any:
    """Return the event loop of the SDK's thread; None if it does not run."""
    return getattr(_sdk("modal._utils.async_utils", "synchronizer"), "_loop", None)


os.register_at_fork(before=_before, after_in_child=_after_in_child)
