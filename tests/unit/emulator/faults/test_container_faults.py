"""When a rule about containers acts, and on which, with containers that are no processes."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import create_autospec

import pytest
from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.containers.capacity import Capacity
from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.faults.container_faults import ContainerFaults
from modalflow.emulator.faults.rules import Rule, Rules
from modalflow.emulator.faults.spec.fault_spec import parse
from modalflow.emulator.functions.function import Function
from modalflow.emulator.processes.process import Process
from tests.unit.emulator.parts import Notes, make_call


class Fleet:
    """Pools whose containers have processes in name, and end when they are killed."""

    def __init__(self, *specs: str) -> None:
        self.rules, containers = Rules(1), Containers()
        self.faults = ContainerFaults(self.rules, containers, self)
        placement = Placement(Capacity(1000.0, 1_000_000, 10), Notes())
        self.pools = Pools(containers, placement, self.faults, scaledown_window=60.0)
        self.started: list[Container] = []
        self.interrupted: list[Container] = []
        for spec in specs:
            self.rules.add(spec)
        self.faults.refresh()

    async def run(self, container: Container) -> int:
        over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        process: Any = create_autospec(Process, instance=True)
        process.kill.side_effect = lambda: over.cancelled() or over.cancel()
        process.interrupt.side_effect = lambda: self.interrupted.append(container)
        container.process = process
        self.started.append(container)
        await asyncio.wait({over})
        return -9

    async def call(self, function: Function) -> Container:
        """Start one more container of the function and give it an input."""
        call = make_call(function)
        self.pools.submit(call.put(api_pb2.FunctionPutInputsItem()))
        await self.settle()
        container = self.started[-1]
        container.ask(1)
        self.pools.asked(container)
        await self.settle()
        return container

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for container in self.pools.live():
            container.kill("the test is over")
        await self.faults.close()
        await self.pools.close(0.0)


def function(tag: str = "f", **definition: object) -> Function:
    app = App(environment="main", description="app", state=api_pb2.APP_STATE_DEPLOYED)
    made = Function(app=app, tag=tag, definition=api_pb2.Function(**definition))  # type: ignore[arg-type]
    made.keep(1, 0, 0)
    made.publish(1)
    return made


def killed(*containers: Container) -> list[bool]:
    return [bool(container.process and container.process.kill.called) for container in containers]  # type: ignore[attr-defined]


async def test_a_second_counts_for_every_container_that_works() -> None:
    """`at=second` looks at each one; with `after` the first seconds of the function's containers are spared."""
    fleet, made = Fleet("container/app/f:kill,at=second,after=2,count=1"), function()
    first, other = await fleet.call(made), await fleet.call(function("g"))
    for expected in ([False, False], [False, False], [True, False], [True, False]):
        fleet.faults.tick()
        await fleet.settle()
        assert killed(first, other) == expected
    await fleet.close()


async def test_the_nth_input_is_hit() -> None:
    """`at=input` counts inputs over all containers of the function."""
    fleet, made = Fleet("container/app/f:kill,at=input,after=1,count=1"), function()
    first, second = await fleet.call(made), await fleet.call(made)
    assert killed(first, second) == [False, True]
    [rule] = fleet.rules
    assert [(each.subject, each.occasion) for each in rule.last] == [("app/f", 2)]
    await fleet.close()


async def test_now_takes_the_oldest_first() -> None:
    """With `count=1` one container is chosen: the one that was started first."""
    fleet, made = Fleet(), function()
    first, second = await fleet.call(made), await fleet.call(made)
    chosen = fleet.faults.inject(Rule("now", parse("container:kill,count=1"), "1"))
    await fleet.settle()
    assert chosen == [first.container_id]
    assert killed(first, second) == [True, False]
    await fleet.close()


@pytest.mark.parametrize("nonpreemptible", [False, True])
async def test_what_cannot_be_preempted_is_not(nonpreemptible: bool) -> None:
    """`nonpreemptible=True` keeps a function's containers from being preempted, as on Modal."""
    placement = api_pb2.SchedulerPlacement(nonpreemptible=nonpreemptible)
    fleet = Fleet("container:preempt,at=input")
    container = await fleet.call(function(scheduler_placement=placement))
    assert fleet.interrupted == ([] if nonpreemptible else [container])
    await fleet.close()
