"""Calls of many inputs, generators, calls from inside a container, and results that are large or cannot be read."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from typing import Any

import modal
import pytest
from modal.exception import ExecutionError, RemoteError, SerializationError

from tests.contract.deploying import Deployed
from tests.support import wait_until

#: As many as the SDK lets wait for their results.
MANY = 1_000
#: Several of the batches of 49 in which the SDK sends the inputs of a map.
SOME = 200
#: More than a batch of 512, which is that of a spawned map.
SPAWNED = 600
LARGE = 20 * 2**20


@pytest.fixture(scope="module")
def maps(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("maps_app", f"test-maps-{uuid.uuid4().hex[:8]}", client)
    yield deployed
    deployed.stop()


def test_a_map_over_many_inputs(maps: Deployed) -> None:
    """map() gives results in the order of the inputs, or each as it comes; starmap and for_each are its relatives."""
    square, weighed = maps.function("square"), maps.function("weighed")
    assert list(square.map(range(MANY))) == [n * n for n in range(MANY)]
    assert sorted(square.map(iter(range(SOME)), order_outputs=False)) == [n * n for n in range(SOME)]
    square.for_each(range(20))
    assert list(weighed.starmap([(n, 1) for n in range(5)], kwargs={"weight": 10})) == [10, 20, 30, 40, 50]
    assert next(iter(weighed.map(range(5), range(5), order_outputs=False))) != 0, "the slowest is not waited for"
    assert list(square.map([])) == []


def test_spawned_maps(maps: Deployed, notes: modal.Dict, name: str) -> None:
    """The results of a spawned map can be counted, had one by one, as a range and by another process."""
    call = maps.function("square").experimental_spawn_map(range(SPAWNED))
    assert call.num_inputs() == SPAWNED
    assert list(call.iter(start=10, end=13)) == [100, 121, 144]
    assert list(call.iter()) == [n * n for n in range(SPAWNED)]
    assert call.get(index=SPAWNED - 1) == (SPAWNED - 1) ** 2
    with pytest.raises(ValueError, match="Invalid index range"):
        list(call.iter(end=SPAWNED + 1))
    program = "import modal, sys; c = modal.FunctionCall.from_id(sys.argv[1]); print(c.num_inputs(), c.get(index=7))"
    said = subprocess.run(
        [sys.executable, "-c", program, call.object_id], env=os.environ, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(SPAWNED), "49"]
    maps.function("fails_the_first_time").spawn_map([2, 4], [name, name])
    wait_until(lambda: (notes.get(2), notes.get(4)) == (1, 1), timeout=30, what="the inputs of spawn_map()")


def test_failures_in_a_map(maps: Deployed, notes: modal.Dict, name: str) -> None:
    """The first failure ends a map, unless exceptions are results; retries come before."""
    square, flaky = maps.function("square"), maps.function("fails_the_first_time")
    with pytest.raises(ValueError, match="-1 is negative"):
        list(square.map([1, -1, 2]))
    numbers = list(range(1, 12))
    results = list(flaky.map(numbers, [name] * len(numbers), return_exceptions=True))
    assert results[:9] + results[10:] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    assert isinstance(results[9], ValueError)
    assert str(results[9]) == "10 failed, try 2"
    assert [notes[n] for n in numbers] == [2, 1, 2, 1, 2, 1, 2, 1, 2, 2, 2]
    square.for_each([1, -1], ignore_exceptions=True)
    ok, bad = square.spawn(3), square.spawn(-3)
    with pytest.raises(ValueError, match="-3 is negative"):
        modal.FunctionCall.gather(ok, bad)


def test_generators(maps: Deployed) -> None:
    """What is yielded arrives in order, large or many, until the end or the failure; a generator may be a method."""
    assert list(maps.function("yields").remote_gen(500)) == list(range(500))
    assert list(maps.function("yields_async").remote_gen(5)) == [0, 1, 2, 3, 4]
    assert [len(chunk) for chunk in maps.function("yields_async").remote_gen(2, 3_000_000)] == [3_000_000] * 2
    assert list(maps.function("yields").remote_gen(0)) == []

    def before_its_failure() -> list[int]:
        seen: list[int] = []
        with pytest.raises(ValueError, match="after 3"):
            for item in maps.function("yields").remote_gen(3, fail=True):
                seen.append(item)
        assert seen == [0, 1, 2][: len(seen)]
        return seen

    # The SDK reads items and the result side by side, and raises at once: on a busy machine it misses the last items.
    wait_until(lambda: len(before_its_failure()) == 3, 60.0, "all items of a generator that fails")
    scaled = modal.Cls.from_name(maps.name, "Scaled", client=maps.client)
    assert list(scaled(factor=2).multiples.remote_gen(4)) == [0, 2, 4, 6]


def test_asynchronously(maps: Deployed) -> None:
    """Whatever can be called has its ``.aio``."""

    async def calls() -> list[Any]:
        square = maps.function("square")
        call = await square.spawn.aio(4)
        mapped = [n async for n in square.map.aio(range(5))]
        starred = [n async for n in maps.function("weighed").starmap.aio([(1, 1), (2, 2)])]
        await square.for_each.aio(range(3))
        generated = [n async for n in maps.function("yields").remote_gen.aio(3)]
        both = await modal.FunctionCall.gather.aio(call, await square.spawn.aio(5))
        many = await square.experimental_spawn_map.aio(range(3))
        iterated = [n async for n in many.iter.aio()]
        stats = await square.get_current_stats.aio()
        return [await square.remote.aio(3), mapped, starred, generated, list(both), iterated, stats.backlog]

    assert asyncio.run(calls()) == [9, [0, 1, 4, 9, 16], [2, 4], [0, 1, 2], [16, 25], [0, 1, 4], 0]


def test_large_inputs_and_outputs(maps: Deployed) -> None:
    """Twenty megabytes go there and back, spawned and mapped."""
    data = os.urandom(2**20) * (LARGE // 2**20)
    echo = maps.function("echo")
    assert echo.spawn(data).get() == data
    assert [result == data for result in echo.map([data, data])] == [True, True]


def test_what_cannot_be_serialised(maps: Deployed) -> None:
    """A result that cannot be pickled is an error that says so; an exception still tells what it was."""
    returns, raises = maps.function("returns"), maps.function("raises")
    with pytest.raises((ExecutionError, RemoteError, TypeError), match=r"pickle|serial"):
        returns.remote("a lock")
    returned = returns.remote("an exception")
    assert isinstance(returned, ValueError), "what is returned is no failure"
    with pytest.raises(SerializationError, match=r"exception holds a lock of type .*ValueError"):
        raises.remote("unserialisable")
    with pytest.raises(SystemExit):
        raises.remote("exit")
    assert returns.remote("nothing") is None, "the function lives on"
    with pytest.raises(Exception, match="mine") as caught:
        raises.remote("own")
    assert type(caught.value).__name__ == "Own"
    assert caught.value.args == ("mine", 3)


def test_remote_tracebacks(maps: Deployed) -> None:
    """The caller sees where in the container's code an exception was raised."""
    with pytest.raises(ValueError, match="from another") as caught:
        maps.function("raises").remote("chained")
    shown = "".join(traceback.format_exception(caught.value))
    assert re.search(r"maps_app\.py\", line \d+, in raises", shown), shown


def test_from_inside_a_container(maps: Deployed) -> None:
    """Functions call one another, themselves found by handle or by name, and know which call they are."""
    call = maps.function("calls_others").spawn(maps.name)
    said = call.get(timeout=60)
    inner = said.pop("call")
    assert said == {
        "remote": 25,
        "map": [n * n for n in range(10)],
        "generator": [0, 1, 2],
        "gather": [0, 1, 4],
        "method": 12,
        "raised": "-1 is negative",
    }
    assert maps.function("calls_others_async").remote() == [0, 1, 4, 9, 16, 81]
    assert modal.FunctionCall.from_id(inner, client=maps.client).get(timeout=0) == 0
    [root] = call.get_call_graph()
    assert root.status.name == "SUCCESS"
    assert (root.function_name, root.function_call_id) == ("calls_others", call.object_id)
    below = [(child.function_name, child.status.name) for child in root.children]
    assert below.count(("square", "FAILURE")) == 1
    assert below.count(("square", "SUCCESS")) == 14
    assert [status for function, status in below if function.startswith("Scaled.")] == ["SUCCESS"]
    itself = maps.function("about_itself").spawn()
    about = itself.get()
    [node] = itself.get_call_graph()
    assert about == {
        "is_local": False,
        "call": itself.object_id,
        "input": node.input_id,
        "container": node.task_id,
    }
    assert modal.is_local()
    assert modal.current_input_id() is None


def test_classes_with_options(maps: Deployed) -> None:
    """Parameters and options each make containers of their own, which keep their state."""
    scaled = modal.Cls.from_name(maps.name, "Scaled", client=maps.client)
    two = scaled(factor=2, name="two")
    assert list(two.times.map(range(4))) == [0, 2, 4, 6]
    assert two.times.spawn(5).get() == 10
    one = scaled.with_options(max_containers=1, env={"SCALED": "one"})(factor=1, name="one")
    assert [one.times.remote(n) for n in range(3)] == [0, 1, 2]
    assert one.state.remote() == ("one", [0, 1, 2], "one")
    wide = scaled.with_options(max_containers=1).with_concurrency(max_inputs=3)(name="wide")
    assert max(wide.most_at_once.map([3, 3, 3])) == 3
    batches = modal.Cls.from_name(maps.name, "Batches", client=maps.client)
    assert max(size for _, size in batches().sizes.map(range(4))) == 2
    larger = batches.with_batching(max_batch_size=4, wait_ms=1000)
    results = list(larger().sizes.map(range(4)))
    assert [n for n, _ in results] == [0, 1, 2, 3]
    assert max(size for _, size in results) > 2
