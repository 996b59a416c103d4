"""All that can go wrong on purpose in one control plane: rules added, listed and cleared while it runs.

Owns which part of the control plane hears of which rules, the clock's skew, stops of the world and late commits. A
part that no rule concerns is left as if this did not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from modalflow.emulator import clock
from modalflow.emulator.faults.containers import ContainerFaults
from modalflow.emulator.faults.kinds import Scope
from modalflow.emulator.faults.late_commits import LateCommits
from modalflow.emulator.faults.rpcs import RpcFaults
from modalflow.emulator.faults.rules import Rule, Rules, Turn
from modalflow.emulator.faults.spec import FaultSpecError, parse
from modalflow.emulator.faults.stoppage import Stoppage

log = logging.getLogger(__name__)

TICK = 1.0


class Faults:
    """The rules, and the parts of the control plane that follow them. Close it before those parts."""

    def __init__(
        self, rules: Rules, stoppage: Stoppage, rpcs: RpcFaults, containers: ContainerFaults, late_commits: LateCommits
    ) -> None:
        self.rules = rules
        self._stoppage, self._rpcs, self._containers, self._late_commits = stoppage, rpcs, containers, late_commits
        self._ticking: asyncio.Task[None] | None = None
        self._stops: dict[asyncio.Task[None], Rule] = {}

    def add(self, text: str) -> Rule:
        """Add a rule, effective at once; FaultSpecError if it cannot be read."""
        rule = self.rules.add(text)
        self._refresh()
        if rule.spec.scope is Scope.WORLD and rule.spec.point == "once":
            self._maybe_stop(rule)
        return rule

    def clear(self, rule_ids: Iterable[str] | None = None) -> list[Rule]:
        """Remove rules, all if no ids are given; KeyError for an unknown id.

        What they hold back goes on: a stopped world, frozen containers, late commits, lost replies that are held. What
        they have planned does not happen. Without ids that holds for what was brought about by ``at_once`` too.
        """
        removed = self.rules.clear(rule_ids)
        self._refresh()
        for task, rule in self._stops.items():
            if rule_ids is None or rule in removed:
                task.cancel()
        self._containers.give_up(None if rule_ids is None else removed)
        return removed

    def at_once(self, text: str) -> list[str]:
        """Do something now, once, without a rule; return the ids of the containers it was done to.

        FaultSpecError for what cannot be done at a given moment, LookupError if no container is concerned.
        """
        spec = parse(text)
        rule = Rule("now", spec, f"{self.rules.seed}/now/{text}")
        if spec.scope is Scope.WORLD:
            self._maybe_stop(rule)
            return []
        if spec.scope is not Scope.CONTAINER or spec.kind.name == "crash-start":
            raise FaultSpecError(
                f"fault {text!r}: {spec.kind.name!r} is no event that can be brought about now; add it as a rule. "
                "For example: container/etl/load:preempt"
            )
        found = self._containers.at_once(rule)
        if not found:
            raise LookupError(f"fault {text!r}: no living container is concerned")
        return found

    def report(self) -> list[dict[str, Any]]:
        """Describe all rules in plain data."""
        return [rule.report() for rule in self.rules]

    async def close(self) -> None:
        """Let everything go on that was held back; change nothing more."""
        tasks = [*self._stops, *([self._ticking] if self._ticking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._containers.close()
        self.rules.clear()
        self._refresh()

    def _refresh(self) -> None:
        """Let every part follow the rules as they are now."""
        self._rpcs.refresh()
        self._containers.refresh()
        self._late_commits.refresh()
        clock.skew(sum(rule.spec.value for rule in self.rules.of(Scope.CLOCK)))
        ticks = self._containers.has_seconds or any(r.spec.point == "second" for r in self.rules.of(Scope.WORLD))
        if ticks and self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
        elif not ticks and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self._containers.second()
                for rule in self.rules.of(Scope.WORLD):
                    if rule.spec.point == "second":
                        self._maybe_stop(rule)
            except Exception:
                # A loop's boundary: the rules of the next second still count.
                log.exception("a second's faults failed")

    def _maybe_stop(self, rule: Rule) -> None:
        turn = rule.happens("world")
        if turn is None:
            return
        task = asyncio.get_running_loop().create_task(self._stop(rule, turn))
        self._stops[task] = rule
        task.add_done_callback(self._stops.pop)

    async def _stop(self, rule: Rule, turn: Turn) -> None:
        if (wait := rule.spec.options.get("wait")) is not None:
            await asyncio.sleep(wait.draw(turn.random))
        seconds, frozen = rule.spec.value, rule.spec.options.get("containers") == "frozen"
        rule.note(turn, f"stopped for {seconds:g} s{', containers too' if frozen else ''}")
        over = asyncio.Event()
        self._stoppage.begin()
        if frozen:
            self._containers.freeze(over)
        try:
            await asyncio.sleep(seconds)
        finally:
            over.set()
            self._stoppage.end()
            if not self._stoppage.is_active:
                log.info("The world goes on")
