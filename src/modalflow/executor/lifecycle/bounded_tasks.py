"""What the engine does on the side: forgetting, cancelling, barring. So many at once, and in order.

A burst of ten thousand outcomes would else be ten thousand RPCs at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Chores:
    """Runs at most ``most`` coroutines at once; what fails is whoever runs them's to log."""

    def __init__(self, most: int, run: Callable[[Coroutine[Any, Any, Any]], object]) -> None:
        self._most = most
        self._run = run
        self._waiting: deque[Coroutine[Any, Any, Any]] = deque()
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    def put(self, chore: Coroutine[Any, Any, Any]) -> None:
        """Run it as soon as its turn comes."""
        self._waiting.append(chore)
        self._go()

    def drop(self) -> None:
        """Let go of what has not begun."""
        while self._waiting:
            self._waiting.popleft().close()

    def _go(self) -> None:
        while self._waiting and self._under_way < self._most:
            self._under_way += 1
            self._run(self._do(self._waiting.popleft()))

    async def _do(self, chore: Coroutine[Any, Any, Any]) -> None:
        try:
            await chore
        finally:
            self._under_way -= 1
            self._go()
