"""Capacity decisions: start another container of a function now, make it wait, or retire others for it.

Owns the order among waiting functions: the longest wait is not overtaken forever, and no function waits for its first
container while others have several. It starts and ends no container: pools.py does.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from modalflow.emulator.containers.capacity import Capacity, Need
from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.definitions.definition_check import lines_without_effect
from modalflow.emulator.functions.function import Function

log = logging.getLogger(__name__)

#: Seconds before the reason for a wait is written to the function's log.
LOG_AFTER = 5.0

#: Seconds before other functions no longer get resources needed by a waiting one.
PATIENCE = 30.0


class FunctionLog(Protocol):
    """The log of a function, for its users."""

    def note(self, function: Function, text: str) -> None: ...


class Wait:
    """A function's wait for capacity."""

    def __init__(self, function: Function, need: Need, since: float) -> None:
        self.function, self.need, self.since = function, need, since
        self.obstacle = ""
        self.logged = False


class Placement:
    """The placement of containers within a capacity."""

    def __init__(
        self,
        capacity: Capacity,
        log: FunctionLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        in_gvisor: bool = False,
    ) -> None:
        """``in_gvisor``: containers run in gVisor, which gives some options their effect."""
        self.capacity, self._function_log, self._in_gvisor = capacity, log, in_gvisor
        self._clock = clock
        self._waits: dict[str, Wait] = {}
        self._noted: set[tuple[str, str]] = set()

    def impossible(self, function: Function) -> str:
        """Return the reason if no container of the function can ever start here, empty if one can."""
        reasons = [self.capacity.impossible(need) for need in needs(function)]
        return "" if not all(reasons) else reasons[0]

    def fitting(self, function: Function) -> Need | None:
        """Return the need of another container of the function; None if it has to wait. Waits are recorded."""
        possible = [need for need in needs(function) if not self.capacity.impossible(need)]
        obstacle = ""
        for need in possible:
            obstacle = self._others_first(function, need) or self.capacity.obstacle(need)
            if not obstacle:
                self._waits.pop(function.object_id, None)
                return need
        if possible:
            wait = self._waits.get(function.object_id)
            if wait is None:
                wait = self._waits[function.object_id] = Wait(function, possible[0], self._clock())
                log.info("function %s waits for %s", function.tag, obstacle)
            wait.need, wait.obstacle = possible[0], obstacle
        return None

    def assign(self, container: Container, need: Need) -> None:
        function = container.function
        self.capacity.assign(container.container_id, need, function.tag)
        ignored = lines_without_effect(function.spec, in_gvisor=self._in_gvisor)
        for note in (*self.capacity.notes(need), *ignored):
            if (function.object_id, note) not in self._noted:
                self._noted.add((function.object_id, note))
                self._function_log.note(function, f"{function.tag} {note}")

    def blocking(self, function: Function, living: Iterable[Container]) -> list[Container]:
        """Return the containers to end so that one of the function can start; empty if that does not help.

        Idle containers come first, the longest idle before the others. For a function's first container, a busy one may
        have to end, if its function has several: it gets no further input.
        """
        wait = self._waits.get(function.object_id)
        containers = [c for c in living if c.state is not State.ENDED]
        leaving = [c.container_id for c in containers if c.retiring]
        if wait is None or not self.capacity.without(leaving).obstacle(wait.need):
            return []
        others = [c for c in containers if c.function is not function and not c.retiring and c.state is State.READY]
        candidates = sorted((c for c in others if not c.inputs), key=lambda c: c.idle_since)
        if all(c.function is not function for c in containers):
            candidates += _spare(others)
        chosen: list[Container] = []
        for container in candidates:
            grant = self.capacity.grant(container.container_id)
            if grant is None:
                continue
            chosen.append(container)
            left = self.capacity.without([*leaving, *(c.container_id for c in chosen)])
            if not left.obstacle(wait.need):
                return [c for c in chosen if self._helps(c, chosen, leaving, wait.need)]
        return []

    def release(self, container: Container) -> None:
        self.capacity.release(container.container_id)

    def end_wait(self, function: Function) -> None:
        """End the function's wait."""
        self._waits.pop(function.object_id, None)

    @property
    def has_waits(self) -> bool:
        """Return whether any function waits for capacity."""
        return bool(self._waits)

    def waits_for(self, function: Function) -> str:
        """Return the reason for the function's wait, empty if it does not wait."""
        wait = self._waits.get(function.object_id)
        return wait.obstacle if wait is not None else ""

    def waiting_since(self, function: Function) -> float:
        """Return the start of the function's wait, infinity if it does not wait."""
        wait = self._waits.get(function.object_id)
        return wait.since if wait is not None else math.inf

    def log_waits(self) -> None:
        """Write the reasons for longer waits to the logs of the functions, once for each wait."""
        for wait in self._waits.values():
            if not wait.logged and self._clock() - wait.since >= LOG_AFTER:
                wait.logged = True
                self._function_log.note(wait.function, f"{wait.function.tag} waits for {wait.obstacle}")

    def _others_first(self, function: Function, need: Need) -> str:
        own = self._waits.get(function.object_id)
        since = own.since if own is not None else self._clock()
        for wait in self._waits.values():
            if wait is own or wait.since >= since or self._clock() - wait.since < PATIENCE:
                continue
            if _compete(need, wait.need):
                return f"its turn: {wait.function.tag} waits longer, for {wait.obstacle}"
        return ""

    def _helps(self, one: Container, chosen: list[Container], leaving: list[str], need: Need) -> bool:
        rest = [c.container_id for c in chosen if c is not one]
        return bool(self.capacity.without([*leaving, *rest]).obstacle(need))


def needs(function: Function) -> list[Need]:
    """Return the possible needs of the function's containers, the preferred one first: several for a list of GPUs."""
    wanted = Need.of(function.spec.resources)
    return [wanted, *(Need.of(resources) for resources in function.fallbacks_of_spec)]


def _compete(one: Need, other: Need) -> bool:
    same_gpu = bool(one.gpus and other.gpus)
    return same_gpu or bool(one.cores and other.cores) or bool(one.memory_mib and other.memory_mib)


def _spare(containers: list[Container]) -> list[Container]:
    """Return one busy container of each function with several, the function with the most first."""
    by_function: dict[str, list[Container]] = {}
    for container in containers:
        if container.inputs:
            by_function.setdefault(container.function.object_id, []).append(container)
    several = sorted((each for each in by_function.values() if len(each) > 1), key=len, reverse=True)
    return [each[-1] for each in several]
