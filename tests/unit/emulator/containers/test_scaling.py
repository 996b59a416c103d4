"""Whatever happens to inputs and containers: at each moment as many containers are there as the functions want."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st
from modal_proto import api_pb2

from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers.container import Container
from modalflow.emulator.functions.function import Function
from tests.unit.emulator.containers.test_pools import FAILURE, SUCCESS, Fleet, make_function

DEFINITIONS: list[Callable[[], Function]] = [
    make_function,
    lambda: make_function(max_concurrent_inputs=3),
    lambda: make_function(max_concurrent_inputs=3, autoscaler_settings=api_pb2.AutoscalerSettings(max_containers=2)),
    lambda: make_function(autoscaler_settings=api_pb2.AutoscalerSettings(buffer_containers=1)),
    lambda: make_function(autoscaler_settings=api_pb2.AutoscalerSettings(buffer_containers=1, max_containers=3)),
    lambda: make_function(single_use_containers=True),
    lambda: make_function(
        single_use_containers=True, autoscaler_settings=api_pb2.AutoscalerSettings(buffer_containers=1)
    ),
    lambda: make_function(batch_max_size=4),
]

EVENTS = st.tuples(st.sampled_from(("call", "ask", "put", "fail", "cancel", "end")), st.integers(0, 60))


class Story:
    """Two functions that compete for few places, and what happens to them."""

    def __init__(self, functions: list[Function], places: int) -> None:
        self.functions = functions
        self.fleet = Fleet(max_containers=places)
        self.asks: dict[Container, asyncio.Future[list[Input] | None]] = {}

    @property
    def living(self) -> list[Container]:
        return [c for c in self.fleet.started if c in self.fleet.pools.live()]

    async def happens(self, event: str, number: int) -> None:
        pools, containers = self.fleet.pools, self.living
        if event == "call":
            await self.fleet.call(self.functions[number % 2], 1 + number % 5)
            return
        if not containers:
            return
        container = containers[number % len(containers)]
        items = list(container.inputs.values())
        if event == "ask" and container.free and (container not in self.asks or self.asks[container].done()):
            asked = container.ask(max(container.spec.batch_max_size, 1))
            self.asks[container] = asked.answer
            pools.asked(container)
        elif event in ("put", "fail") and items:
            pools.put(container, items[number % len(items)], SUCCESS if event == "put" else FAILURE, 0)
        elif event == "cancel":
            pending = list(pools.pool(self.functions[number % 2]).pending)
            pools.cancel(pending[: 1 + number % 3], terminate_containers=False)
        elif event == "end":
            await self.fleet.end(container, number % 2)
        await self.fleet.settle()

    async def match_all(self) -> None:
        for function in self.functions:
            self.fleet.pools.rescale(function)
        await self.fleet.settle()

    def state(self) -> tuple[object, ...]:
        """Return what there is: containers that were started and those that are to end, and who has what."""
        return (
            len(self.fleet.started),
            [c.retiring for c in self.fleet.started],
            [len(c.inputs) for c in self.fleet.started],
            [len(self.fleet.pools.pool(function).pending) for function in self.functions],
        )

    async def close(self) -> None:
        for ask in self.asks.values():
            ask.cancel()
        self.fleet.pools.outcomes.close()
        # As in Pools.close: no container starts in the place of one that ends.
        self.fleet.pools._closing = True
        for container in self.living:
            container.end_reason = "the test is over"
            await self.fleet.end(container)


async def _told(functions: list[Function], places: int, events: list[tuple[str, int]]) -> None:
    story = Story(functions, places)
    try:
        await story.match_all()
        for event in events:
            await story.happens(*event)
            before = story.state()
            await story.match_all()
            assert story.state() == before, event
    finally:
        await story.close()


# The last container without an input takes one that waited for it: the buffer is used up.
@example(kinds=[3, 0], places=6, events=[("call", 0), ("ask", 0), ("ask", 1), ("put", 0), ("call", 6), ("ask", 0)])
@given(
    kinds=st.lists(st.sampled_from(range(len(DEFINITIONS))), min_size=2, max_size=2),
    places=st.integers(1, 6),
    events=st.lists(EVENTS, max_size=25),
)
def test_nothing_is_left_to_be_matched(kinds: list[int], places: int, events: list[tuple[str, int]]) -> None:
    """After each event a further round of matching hands out and starts nothing: all that is possible is done."""
    asyncio.run(_told([DEFINITIONS[kind]() for kind in kinds], places, events))
