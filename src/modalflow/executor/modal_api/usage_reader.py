"""The usage records on the logs Volume, read once for all that need them: the budgets, and tasks that size themselves.

Reads in a thread of its own, one pass after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

from modalflow.cost.usage import Record
from modalflow.executor.connection import Connection
from modalflow.logs.usage_files import UsageFiles

#: Days of records for a month: in another time zone, it begins a day earlier or later.
DAYS = 32

#: Called with the records of a file, on another thread.
Keep: TypeAlias = Callable[[list[Record]], object]


class UsageReader:
    """Passes each record on to all subscribers, once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._files = UsageFiles(days=DAYS)
        self._subscribers: list[Keep] = []
        self._pass = asyncio.Lock()
        self.complete_at = -float("inf")
        """When all records were last read, by the monotonic clock."""

    def subscribe(self, keep: Keep) -> None:
        """Pass all records on to ``keep``, from the first pass on."""
        self._subscribers.append(keep)

    async def read(self) -> bool:
        """Read the next records; return whether there are more to read at once. Raises FAILURES."""
        began = time.monotonic()
        async with self._pass:
            more = await self._connection.get().read_usage(self._files, self._pass_on)
        if not more:
            self.complete_at = began
        return more

    def _pass_on(self, records: list[Record]) -> None:
        for keep in self._subscribers:
            keep(records)
