"""Faults of Volumes: commits that come late.

Owns the waiting of commits.
"""

from __future__ import annotations

import asyncio
import contextlib

from modalflow.emulator.faults.rules import Rule, Rules
from modalflow.emulator.faults.spec.kinds import Scope


class LateCommits:
    """Delays commits according to the rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._current: tuple[Rule, ...] = ()
        self._none_left = asyncio.Event()

    def refresh(self) -> None:
        """Follow the rules after a change. Without any, commits that wait go on."""
        self._current = self._rules.of(Scope.VOLUME)
        if self._current:
            self._none_left.clear()
        else:
            self._none_left.set()

    async def wait(self, volume: str) -> None:
        """Wait for as long as the rules delay a commit of the volume of that name."""
        if not self._current:
            return
        late = 0.0
        for rule in self._current:
            if rule.spec.concerns(volume) and (occurrence := rule.draw(volume)) is not None:
                seconds = rule.spec.value.draw(occurrence.random)
                rule.record(occurrence, f"a commit comes {seconds:.3f} s late")
                late += seconds
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_left.wait(), late)
