"""Calls of the SDK with a time limit, which the SDK itself does not have, and with plain data only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from modalflow.executor.modal_api.rate_limits import rate_limits_raised
from modalflow.protocol.plain_data import plain_data_only

#: Seconds for one RPC, with its retries and throttle waits: the SDK itself would wait forever.
RPC_TIMEOUT = 60.0

_T = TypeVar("_T")


async def bounded(call: Awaitable[_T], seconds: float = RPC_TIMEOUT, *, lenient: bool = False) -> _T:
    """Await a call of the SDK within a time limit; raise rate limits at once, and unpickle plain data only.

    If ``lenient``, an unreadable value is UNREADABLE instead of an error.
    """
    # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that arrives together with the answer.
    with plain_data_only(lenient=lenient), rate_limits_raised():
        async with asyncio.timeout(seconds):
            return await call


async def listed(iterator: AsyncIterator[_T]) -> list[_T]:
    """Return all that the SDK iterates over, within a time limit. An unreadable value is UNREADABLE."""
    with plain_data_only(lenient=True):
        async with asyncio.timeout(RPC_TIMEOUT):
            return [each async for each in iterator]
