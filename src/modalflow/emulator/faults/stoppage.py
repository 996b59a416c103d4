"""Stops of the world: while one lasts, nothing is answered.

Owns who waits. When a stop begins and ends is Faults' matter.
"""

from __future__ import annotations

import asyncio


class Stoppage:
    """Whether the world is stopped; several stops may overlap."""

    def __init__(self) -> None:
        self._stops = 0
        self._over = asyncio.Event()

    @property
    def is_active(self) -> bool:
        return self._stops > 0

    def begin(self) -> None:
        """Answer nothing from now on."""
        self._stops += 1
        if self._stops == 1:
            self._over = asyncio.Event()

    def end(self) -> None:
        """End one stop; after the last one everything goes on, in the order in which it came."""
        self._stops -= 1
        if not self._stops:
            self._over.set()

    async def passage(self) -> None:
        """Wait while the world is stopped."""
        while self._stops:
            await self._over.wait()
