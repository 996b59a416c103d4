"""Faults of containers: killed, frozen, preempted, or never got to work.

Owns the time and the manner. Pools decides what the end of a container means for its inputs, as for any other end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.faults.freezing import freeze, thaw
from modalflow.emulator.faults.rules import Occurrence, Rule, Rules
from modalflow.emulator.faults.spec.kinds import Scope

#: Modal's guide, "Preemption" and "Container lifecycle hooks": exit handlers have 30 seconds after the interrupt.
PREEMPTION_GRACE = 30.0

#: Seconds between two checks whether a starting container has its process.
PROCESS_POLL = 0.005

_CRASH = "crash-start"
_DONE = {"kill": "killed", "freeze": "frozen", "preempt": "preempted"}


class ContainerLauncher(Protocol):
    """Starts containers without any fault."""

    async def run(self, container: Container) -> int:
        """Run a container to its end and return its exit code."""
        ...


class ContainerFaults:
    """Runs containers for the pools, and applies the rules to them."""

    def __init__(self, rules: Rules, containers: Containers, launcher: ContainerLauncher) -> None:
        self._rules, self._containers, self._launcher = rules, containers, launcher
        self._now: tuple[Rule, ...] = ()
        self._tasks: dict[asyncio.Task[None], Rule | None] = {}

    @property
    def has_seconds(self) -> bool:
        """Whether a rule applies to containers every second."""
        return any(rule.spec.point == "second" for rule in self._now)

    def refresh(self) -> None:
        self._now = self._rules.of(Scope.CONTAINER)

    async def run(self, container: Container) -> int:
        """Run the container to its end; return its exit code."""
        for rule in self._now:
            if rule.spec.kind.name != _CRASH or not _concerns(rule, container):
                continue
            occurrence = rule.draw(_subject(container))
            if occurrence is not None:
                rule.record(occurrence, f"{container.container_id} ended while it started")
                container.stderr_tail.append(f"(ended on purpose: {rule.spec.text})\n")
                return 1
        self._reached("start", container)
        return await self._launcher.run(container)

    def on_ready(self, container: Container) -> None:
        """Apply the rules for a container that is ready for its first input."""
        self._reached("ready", container)

    def on_input(self, container: Container) -> None:
        """Apply the rules for a container that has got inputs."""
        self._reached("input", container)

    def _reached(self, point: str, container: Container) -> None:
        for rule in self._now:
            if rule.spec.point == point and rule.spec.kind.name != _CRASH and _concerns(rule, container):
                occurrence = rule.draw(_subject(container))
                if occurrence is not None:
                    self._begin(rule, container, occurrence)

    def tick(self) -> None:
        """Apply the rules for one more second in the life of every ready container."""
        for container in self._containers:
            if container.state is State.READY:
                self._reached("second", container)

    def inject(self, rule: Rule) -> list[str]:
        """Apply a rule now to the living containers that it concerns, oldest first; return their ids."""
        chosen = []
        for container in self._containers:
            if _concerns(rule, container) and (occurrence := rule.draw(_subject(container))) is not None:
                self._begin(rule, container, occurrence)
                chosen.append(container.container_id)
        return chosen

    def freeze(self, over: asyncio.Event) -> None:
        """Freeze every living container until that event."""
        for container in self._containers:
            self._spawn(None, self._freeze(container, over.wait))

    def cancel(self, rules: Iterable[Rule] | None = None) -> None:
        """Thaw the containers that those rules froze, and drop what they planned. Without ``rules``, of all rules."""
        chosen = None if rules is None else list(rules)
        for task, rule in list(self._tasks.items()):
            if chosen is None or rule in chosen:
                task.cancel()

    async def close(self) -> None:
        """Cancel everything, and wait until it has ended."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, rule: Rule, container: Container, occurrence: Occurrence) -> None:
        wait = rule.spec.options.get("wait")
        self._spawn(rule, self._do(rule, container, occurrence, 0.0 if wait is None else wait.draw(occurrence.random)))

    def _spawn(self, rule: Rule | None, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = rule
        task.add_done_callback(self._tasks.pop)

    async def _do(self, rule: Rule, container: Container, occurrence: Occurrence, wait: float) -> None:
        """Wait for the process and then for the time, then act; a container that has ended by then is left alone."""
        while container.process is None and container.state is not State.ENDED:
            await asyncio.sleep(PROCESS_POLL)
        if wait:
            await asyncio.sleep(wait)
        if container.state is State.ENDED or container.process is None:
            rule.record(occurrence, f"{container.container_id} had ended already")
            return
        kind = rule.spec.kind.name
        running = ", ".join(container.inputs) or "no input"
        rule.record(occurrence, f"{container.container_id} {_DONE[kind]} while it ran {running}")
        if kind == "kill":
            container.process.kill()
        elif kind == "preempt":
            grace = rule.spec.options.get("grace", PREEMPTION_GRACE)
            container.stop(f"it was preempted on purpose ({rule.spec.text})", grace)
        else:
            await self._freeze(container, lambda: asyncio.sleep(rule.spec.value))

    async def _freeze(self, container: Container, over: Callable[[], Awaitable[Any]]) -> None:
        if container.process is None:
            return
        pids = freeze(container.process.pid)
        try:
            await over()
        finally:
            thaw(pids)


def _subject(container: Container) -> str:
    app = container.function.app
    return f"{app.name or app.description}/{container.function.tag}"


def _concerns(rule: Rule, container: Container) -> bool:
    if rule.spec.kind.name == "preempt" and container.spec.scheduler_placement.nonpreemptible:
        return False
    if rule.spec.pattern.startswith("ta-"):
        return rule.spec.pattern == container.container_id
    return rule.spec.concerns(_subject(container))
