"""The faults of one control plane: rules are added, listed and cleared while it runs.

Owns the skew of the clock, the stops of the world, and which parts follow the rules. A part without a rule behaves as
if there were no faults.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from modalflow.emulator import clock
from modalflow.emulator.faults.container_faults import ContainerFaults
from modalflow.emulator.faults.late_commits import LateCommits
from modalflow.emulator.faults.rpc_faults import RpcFaults
from modalflow.emulator.faults.rules import Occurrence, Rule, Rules
from modalflow.emulator.faults.spec.fault_spec import FaultSpecError, parse
from modalflow.emulator.faults.spec.kinds import Scope
from modalflow.emulator.faults.stoppage import Stoppage

log = logging.getLogger(__name__)

TICK = 1.0


class FaultInjector:
    """The rules, and the parts of the control plane that follow them. Close it before those parts."""

    def __init__(
        self, rules: Rules, stoppage: Stoppage, rpcs: RpcFaults, containers: ContainerFaults, late_commits: LateCommits
    ) -> None:
        self.rules = rules
        self._stoppage, self._rpcs, self._containers, self._late_commits = stoppage, rpcs, containers, late_commits
        self._ticking: asyncio.Task[None] | None = None
        self._stops: dict[asyncio.Task[None], Rule] = {}

    def add(self, text: str) -> Rule:
        """Add a rule, effective at once; FaultSpecError for an invalid specification."""
        rule = self.rules.add(text)
        self._refresh()
        if rule.spec.scope is Scope.WORLD and rule.spec.point == "once":
            self._maybe_stop(rule)
        return rule

    def clear(self, rule_ids: Iterable[str] | None = None) -> list[Rule]:
        """Remove rules, all if no ids are given; KeyError for an unknown id.

        Everything that they hold back goes on: a stopped world, frozen containers, late commits, held replies. Planned
        faults are dropped. Without ids, this includes the faults of ``inject``.
        """
        removed = self.rules.clear(rule_ids)
        self._refresh()
        for task, rule in self._stops.items():
            if rule_ids is None or rule in removed:
                task.cancel()
        self._containers.cancel(None if rule_ids is None else removed)
        return removed

    def inject(self, text: str) -> list[str]:
        """Inject a fault now, once, without a rule; return the ids of the affected containers.

        FaultSpecError for a fault that needs a rule, LookupError if no container matches.
        """
        spec = parse(text)
        rule = Rule("now", spec, f"{self.rules.seed}/now/{text}")
        if spec.scope is Scope.WORLD:
            self._maybe_stop(rule)
            return []
        if spec.scope is not Scope.CONTAINER or spec.kind.name == "crash-start":
            raise FaultSpecError(
                f"fault {text!r}: {spec.kind.name!r} cannot be injected once; add it as a rule. "
                "For example: container/etl/load:preempt"
            )
        found = self._containers.inject(rule)
        if not found:
            raise LookupError(f"fault {text!r}: no living container matches")
        return found

    def report(self) -> list[dict[str, Any]]:
        """Describe all rules in plain data."""
        return [rule.report() for rule in self.rules]

    async def close(self) -> None:
        """Release everything that was held back, and inject nothing more."""
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
                self._containers.tick()
                for rule in self.rules.of(Scope.WORLD):
                    if rule.spec.point == "second":
                        self._maybe_stop(rule)
            except Exception:
                # A loop's boundary: the rules still apply in the next second.
                log.exception("The faults of one second failed")

    def _maybe_stop(self, rule: Rule) -> None:
        occurrence = rule.draw("world")
        if occurrence is None:
            return
        task = asyncio.get_running_loop().create_task(self._stop(rule, occurrence))
        self._stops[task] = rule
        task.add_done_callback(self._stops.pop)

    async def _stop(self, rule: Rule, occurrence: Occurrence) -> None:
        if (wait := rule.spec.options.get("wait")) is not None:
            await asyncio.sleep(wait.draw(occurrence.random))
        seconds, frozen = rule.spec.value, rule.spec.options.get("containers") == "frozen"
        rule.record(occurrence, f"stopped for {seconds:g} s{', containers too' if frozen else ''}")
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
