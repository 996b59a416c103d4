"""Rate limits that are raised at once, instead of being waited out inside the SDK.

If Modal says after how many seconds to try again, the SDK waits within the call, again and again without an end.
``MODAL_MAX_THROTTLE_WAIT`` limits that, but for the whole process, other code's calls included. Within
``rate_limits_raised()`` the SDK raises ResourceExhaustedError at once, so one pause serves all calls that wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from modalflow.support.replaced import replace
from modalflow.support.replaced_in_sdk import RETRY_CONFIG

SETTING = "max_throttle_wait"

_raised = ContextVar("modalflow_rate_limits_raised", default=False)
_installed = False


class _Config:
    """The SDK's configuration as its retries see it; within ``rate_limits_raised()`` the setting is 0: do not wait."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        if key == SETTING and _raised.get():
            return 0
        return self._config.get(key, *args, **kwargs)


@contextlib.contextmanager
def rate_limits_raised() -> Iterator[None]:
    """Make the SDK's calls within raise ResourceExhaustedError instead of waiting; other code is not affected.

    The mark is a context variable, which the SDK's own loop copies with each call.
    """
    _install()
    token = _raised.set(True)
    try:
        yield
    finally:
        _raised.reset(token)


def _install() -> None:
    """Put ours before the SDK's configuration, once. It has no setting for single calls."""
    global _installed
    if not _installed:
        replace(RETRY_CONFIG, _Config(RETRY_CONFIG.original()))
        _installed = True


def retry_after(error: BaseException) -> float:
    """Return the seconds after which Modal wants to be asked again; 0 if it does not say."""
    for detail in getattr(error, "_grpc_details", None) or ():
        seconds = getattr(detail, "retry_after_secs", None)
        if isinstance(seconds, int | float):
            return float(seconds)
    return 0.0
