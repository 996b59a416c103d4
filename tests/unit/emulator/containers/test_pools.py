"""The policies of pools, with containers that are no processes: what starts, what is reused, what is tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers import pools as pools_module
from modalflow.emulator.containers import results
from modalflow.emulator.containers.capacity import Capacity
from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.outcomes import CRASH_TRIES
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.containers.pool import START_TRIES
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.functions.function import Function
from modalflow.support import backoff
from tests.unit.emulator.parts import Notes, make_call

SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
FAILURE = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE, exception="no")


class Fleet:
    """Pools whose containers are started and ended by the test."""

    def __init__(self, max_containers: int = 100, cores: float = 1000.0, gpus: dict[str, int] | None = None) -> None:
        self.started: list[Container] = []
        self._ends: dict[str, asyncio.Future[int]] = {}
        capacity = Capacity(cores, 1_000_000, max_containers, gpus)
        placement = Placement(capacity, Notes())
        self.pools = Pools(Containers(), placement, self, scaledown_window=60.0)

    def on_ready(self, container: Container) -> None: ...

    def on_input(self, container: Container) -> None: ...

    async def run(self, container: Container) -> int:
        self.started.append(container)
        end = self._ends[container.container_id] = asyncio.get_running_loop().create_future()
        returncode: int = await end
        return returncode

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def call(self, function: Function, count: int = 1) -> list[Input]:
        call = make_call(function)
        items = [call.put(api_pb2.FunctionPutInputsItem(idx=n)) for n in range(count)]
        for item in items:
            self.pools.submit(item)
        await self.settle()
        return items

    async def ask(self, container: Container) -> asyncio.Future[list[Input] | None]:
        answer = container.ask(1).answer
        self.pools.asked(container)
        await self.settle()
        return answer

    async def end(self, container: Container, code: int = 0) -> None:
        self._ends[container.container_id].set_result(code)
        await self.settle()


def make_function(**definition: object) -> Function:
    app = App(environment="main", description="app", state=api_pb2.APP_STATE_DEPLOYED)
    function = Function(app=app, tag="f", definition=api_pb2.Function(**definition))  # type: ignore[arg-type]
    _publish(function)
    return function


def result_of(item: Input) -> api_pb2.GenericResult:
    assert item.done
    return item.call.outputs[0].result


@pytest.fixture(autouse=True)
def no_backoff() -> Iterator[None]:
    with backoff.testing():
        yield


async def test_a_container_is_started_for_an_input_and_then_reused() -> None:
    """The second input, after the first is done, starts nothing even before the container asked for it."""
    fleet, function = Fleet(), make_function()
    [first] = await fleet.call(function)
    [container] = fleet.started
    assert await (await fleet.ask(container)) == [first]
    fleet.pools.put(container, first, SUCCESS, 0)
    [second] = await fleet.call(function)
    assert fleet.started == [container]
    assert await (await fleet.ask(container)) == [second]


async def test_an_input_each_and_no_more_than_allowed() -> None:
    """Waiting inputs get a container each, up to max_containers."""
    fleet = Fleet()
    function = make_function(autoscaler_settings=api_pb2.AutoscalerSettings(max_containers=2))
    await fleet.call(function, 3)
    assert len(fleet.started) == 2


async def test_only_so_many_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a container starts when another one has come up."""
    monkeypatch.setattr(pools_module, "STARTING_AT_ONCE", 2)
    fleet, function = Fleet(), make_function()
    await fleet.call(function, 5)
    assert len(fleet.started) == 2
    await fleet.ask(fleet.started[0])
    assert len(fleet.started) == 3


async def test_concurrent_containers_take_as_many_as_they_say() -> None:
    """Inputs that fit into one container start one."""
    fleet, function = Fleet(), make_function(max_concurrent_inputs=4)
    await fleet.call(function, 4)
    assert len(fleet.started) == 1
    await fleet.call(function, 1)
    assert len(fleet.started) == 2


async def test_a_lost_input_runs_again_and_not_for_ever() -> None:
    """Each lost container costs one of the tries; the result of the last one says how it ended."""
    fleet, function = Fleet(), make_function()
    [item] = await fleet.call(function)
    for number in range(CRASH_TRIES):
        container = fleet.started[number]
        assert await (await fleet.ask(container)) == [item]
        await fleet.end(container, 137)
        await asyncio.sleep(0.01)
    assert "signal 9 (SIGKILL)" in result_of(item).exception
    assert len(fleet.started) == CRASH_TRIES


async def test_an_ephemeral_app_has_one_try() -> None:
    """Outside of deployed apps a lost container fails its input at once."""
    fleet, function = Fleet(), make_function()
    function.app.state = api_pb2.APP_STATE_EPHEMERAL
    [item] = await fleet.call(function)
    await fleet.ask(fleet.started[0])
    await fleet.end(fleet.started[0], 3)
    assert "exited with code 3" in result_of(item).exception


async def test_containers_that_do_not_come_up() -> None:
    """After a few starts one after another what waits fails with the container's last words."""
    fleet, function = Fleet(), make_function()
    [item] = await fleet.call(function)
    for number in range(START_TRIES):
        fleet.started[number].stderr_tail.append("no module named x\n")
        await fleet.end(fleet.started[number], 1)
        await asyncio.sleep(0.01)
    assert "no module named x" in result_of(item).exception


async def test_starts_that_fail_together_are_one_failure() -> None:
    """Many containers that end at the same time do not use up the tries of what waits."""
    fleet, function = Fleet(), make_function()
    items = await fleet.call(function, START_TRIES)
    for container in list(fleet.started):
        await fleet.end(container, 1)
    assert not any(item.done for item in items)


async def test_what_an_earlier_control_plane_left_is_run_in_its_order() -> None:
    """Inputs go on where they stood, before newer ones; one that was cancelled ends so, one of a stopped app fails."""
    fleet, function, stopped = Fleet(), make_function(), make_function()
    stopped.app.state = api_pb2.APP_STATE_STOPPED
    call, gone = (make_call(f) for f in (function, stopped))
    items = [call.put(api_pb2.FunctionPutInputsItem(idx=n)) for n in range(3)]
    items[0].crashes, items[1].ending = 2, results.terminated("cancelled")
    lost = gone.put(api_pb2.FunctionPutInputsItem())
    fleet.pools.resume([*items, lost])
    await fleet.settle()
    assert result_of(items[1]).exception == "cancelled"
    assert "stopped" in result_of(lost).exception
    [newer] = await fleet.call(function)
    given = [await (await fleet.ask(container)) for container in fleet.started]
    assert given == [[items[0]], [items[2]], [newer]]
    assert items[0].crashes == 2, "the end of a control plane is not the input's fault"


async def test_retries_of_the_function() -> None:
    """A failure is tried again as often as the policy says, with the number of the retry."""
    fleet = Fleet()
    function = make_function(retry_policy=api_pb2.FunctionRetryPolicy(retries=1, backoff_coefficient=1.0))
    [item] = await fleet.call(function)
    container = fleet.started[0]
    await fleet.ask(container)
    fleet.pools.put(container, item, FAILURE, 0)
    assert not item.done
    await asyncio.sleep(0.01)
    assert await (await fleet.ask(container)) == [item]
    assert item.retries == 1
    fleet.pools.put(container, item, FAILURE, 0)
    assert result_of(item).exception == "no"


async def test_cancelling() -> None:
    """What waits ends at once, what runs ends when its container says so, whatever it says."""
    fleet = Fleet()
    function = make_function(autoscaler_settings=api_pb2.AutoscalerSettings(max_containers=1))
    running, waiting = await fleet.call(function, 2)
    container = fleet.started[0]
    await fleet.ask(container)
    fleet.pools.cancel([running, waiting], terminate_containers=False)
    assert result_of(waiting).status == api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
    assert not running.done
    assert container.cancellations() == [running.input_id]
    assert container.cancellations() == [], "told once"
    fleet.pools.put(container, running, SUCCESS, 0)
    assert running.status == api_pb2.GenericResult.GENERIC_STATUS_TERMINATED


async def test_cancelling_leaves_what_others_wait_for() -> None:
    """The inputs of a cancelled map leave the line, and those before, between and behind them keep their order."""
    fleet = Fleet()
    function = make_function(autoscaler_settings=api_pb2.AutoscalerSettings(max_containers=1))
    kept, cancelled = [], []
    for _ in range(3):
        kept += await fleet.call(function, 2)
        cancelled += await fleet.call(function, 20)
    fleet.pools.cancel(cancelled, terminate_containers=False)
    assert all(item.status == api_pb2.GenericResult.GENERIC_STATUS_TERMINATED for item in cancelled)
    assert list(fleet.pools.pool(function).pending) == kept


async def test_timeouts() -> None:
    """An input that runs for too long is told to end, and its result is TIMEOUT."""
    fleet, function = Fleet(), make_function(timeout_secs=1)
    [item] = await fleet.call(function)
    container = fleet.started[0]
    await fleet.ask(container)
    fleet.pools.outcomes.time_out(container, item)
    assert container.cancellations() == [item.input_id]
    fleet.pools.put(container, item, FAILURE, 0)
    assert item.status == api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT


async def test_a_new_deployment_gets_new_containers() -> None:
    """Old containers finish what they run and get nothing else; idle ones are told to end."""
    fleet, function = Fleet(), make_function()
    [first] = await fleet.call(function)
    busy = fleet.started[0]
    await fleet.ask(busy)
    _publish(function)
    fleet.pools.published(function)
    [second] = await fleet.call(function)
    new = fleet.started[1]
    assert await (await fleet.ask(new)) == [second]
    fleet.pools.put(busy, first, SUCCESS, 0)
    assert first.status == api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
    assert await (await fleet.ask(busy)) is None


async def test_stopping_an_app() -> None:
    """What waits for a stopped app's functions fails with the reason, and nothing is started any more."""
    fleet = Fleet()
    function = make_function(autoscaler_settings=api_pb2.AutoscalerSettings(max_containers=1))
    running, waiting = await fleet.call(function, 2)
    container = fleet.started[0]
    await fleet.ask(container)
    function.app.state = api_pb2.APP_STATE_STOPPED
    fleet.pools.stop_app(function.app, "App was stopped")
    assert result_of(waiting).exception == "App was stopped"
    await fleet.end(container, 130)
    assert result_of(running).exception == "App was stopped"
    assert fleet.started == [container]


async def test_a_stopped_app_no_longer_waits_for_its_turn() -> None:
    """What waited for the only GPU leaves the line with its app: in it, it would go before everybody for ever."""
    fleet = Fleet(gpus={"T4": 1})
    gpu = api_pb2.Resources(gpu_config=api_pb2.GPUConfig(gpu_type="T4", count=1))
    holder, waits = make_function(resources=gpu), make_function(resources=gpu)
    await fleet.call(holder)
    await fleet.call(waits)
    assert fleet.pools.placement.waits_for(waits)
    waits.app.state = api_pb2.APP_STATE_STOPPED
    fleet.pools.stop_app(waits.app, "App was stopped")
    assert not fleet.pools.placement.waits_for(waits)


async def test_a_cancelled_call_no_longer_waits_for_its_turn() -> None:
    """A call that was cancelled in the line for the only GPU does not keep the place of its function there."""
    fleet = Fleet(gpus={"T4": 1})
    gpu = api_pb2.Resources(gpu_config=api_pb2.GPUConfig(gpu_type="T4", count=1))
    holder, waits = make_function(resources=gpu), make_function(resources=gpu)
    await fleet.call(holder)
    cancelled = await fleet.call(waits)
    assert fleet.pools.placement.waits_for(waits)
    fleet.pools.cancel(cancelled, terminate_containers=False)
    assert not fleet.pools.placement.waits_for(waits)


async def test_idle_containers_are_retired_down_to_the_minimum() -> None:
    """After the scaledown window idle containers end, but for min_containers."""
    fleet = Fleet()
    settings = api_pb2.AutoscalerSettings(min_containers=1, scaledown_window=2)
    function = make_function(autoscaler_settings=settings)
    items = await fleet.call(function, 2)
    for container in fleet.started:
        await fleet.ask(container)
    asks = []
    for container, item in zip(fleet.started, items, strict=True):
        fleet.pools.put(container, item, SUCCESS, 0)
        asks.append(await fleet.ask(container))
    fleet.pools.scale_down(time.monotonic() + 1)
    assert not any(ask.done() for ask in asks)
    fleet.pools.scale_down(time.monotonic() + 3)
    await fleet.settle()
    assert [ask.done() for ask in asks].count(True) == 1
    for ask in asks:
        ask.cancel()


async def test_at_capacity_idle_containers_of_others_make_room() -> None:
    """With all places taken an idle container of another function is ended, and the waiting input gets its place."""
    fleet, other, wanted = Fleet(max_containers=1), make_function(), make_function()
    [item] = await fleet.call(other)
    idle = fleet.started[0]
    await fleet.ask(idle)
    fleet.pools.put(idle, item, SUCCESS, 0)
    asking = await fleet.ask(idle)
    await fleet.call(wanted)
    assert await asking is None
    assert len(fleet.started) == 1
    await fleet.end(idle)
    assert fleet.started[1].function is wanted


async def test_what_did_not_arrive_is_given_to_another() -> None:
    """An input whose request was lost on the way goes back to the front, a request that was given up gets none."""
    fleet, function = Fleet(), make_function()
    [first] = await fleet.call(function)
    container = fleet.started[0]
    assert await (await fleet.ask(container)) == [first]
    fleet.pools.returned(container, [first])
    given_up = container.ask(1)
    given_up.answer.cancel()
    assert await (await fleet.ask(container)) == [first]


async def test_a_place_freed_by_a_finished_input_is_used() -> None:
    """At capacity what waits need not wait for the scaledown window of another function's container."""
    fleet, other, wanted = Fleet(max_containers=1), make_function(), make_function()
    [item] = await fleet.call(other)
    busy = fleet.started[0]
    await fleet.ask(busy)
    await fleet.call(wanted)
    fleet.pools.put(busy, item, SUCCESS, 0)
    assert await (await fleet.ask(busy)) is None


async def test_a_buffer_is_kept_while_there_is_something_to_do() -> None:
    """With two buffer containers a call has three; with nothing to do none is started, and idle ones end in time."""
    fleet, function = Fleet(), make_function(_experimental_buffer_containers=2, task_idle_timeout_secs=1)
    fleet.pools.published(function)
    assert not fleet.started
    [item] = await fleet.call(function)
    assert len(fleet.started) == 3
    for container in list(fleet.started):
        await fleet.ask(container)
    busy = next(c for c in fleet.started if c.inputs)
    fleet.pools.scale_down(time.monotonic() + 10)
    assert sum(c.retiring for c in fleet.started) == 0
    fleet.pools.put(busy, item, SUCCESS, 0)
    fleet.pools.scale_down(time.monotonic() + 10)
    assert all(c.retiring for c in fleet.started)


async def test_a_buffer_counts_for_the_maximum() -> None:
    """max_containers bounds the buffer as well; a buffer set to 0 at run time replaces the definition's."""
    settings = api_pb2.AutoscalerSettings(max_containers=2, buffer_containers=5)
    fleet, function = Fleet(), make_function(autoscaler_settings=settings)
    await fleet.call(function)
    assert len(fleet.started) == 2
    other = make_function(autoscaler_settings=settings)
    other.autoscaler.buffer_containers = 0
    await fleet.call(other)
    assert len(fleet.started) == 3


def _publish(function: Function) -> None:
    number = function.revision + 1
    function.keep(number, 0, 0)
    function.publish(number)


def test_a_closed_event_loop_starts_nothing_anew(caplog: pytest.LogCaptureFixture) -> None:
    """What is left of a container when its event loop is closed neither starts another one nor logs an error."""

    async def begin() -> Fleet:
        fleet = Fleet()
        await fleet.call(make_function())
        return fleet

    loop = asyncio.new_event_loop()
    fleet = loop.run_until_complete(begin())
    [task] = asyncio.all_tasks(loop)
    loop.close()
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    assert len(fleet.started) == 1
    assert [record for record in caplog.records if record.name.startswith("modalflow")] == []
