"""Measurements of a local control plane, each with the real SDK as the client and the real container runtime."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import modal
from modal._serialization import serialize
from modal._utils.async_utils import synchronizer
from modal_proto import api_pb2

from benchmarks import machine
from modalflow.emulator.local import LocalModal

APP = "bench"

#: The content of the large Volume: enough to notice a copy of it, and made in a few seconds.
LARGE_VOLUME_FILES = 5_000
LARGE_VOLUME_MEGABYTES = 200

#: Inputs of one request, as the SDK's ``experimental_spawn_map`` sends them.
PUT_AT_ONCE = 512


#: Inputs of the timed map.
MAPPED = 10_000


@dataclass(frozen=True)
class Mapped:
    """The cost of a map."""

    seconds: float
    cpu: float
    """Processor seconds of the client, the control plane and the containers."""
    cpu_of_control_plane: float


class Bench:
    """A running control plane and its client; figures in the units of ``Measure``."""

    def __init__(self, local: LocalModal, client: modal.Client) -> None:
        self._local, self._client = local, client

    def deploy(self) -> None:
        # A new object: an app remembers the files of the previous control plane.
        sys.modules.pop("benchmarks.bench_app", None)
        importlib.import_module("benchmarks.bench_app").app.deploy(name=APP, client=self._client)
        # The first container waits for the template. It starts while the control plane already answers.
        self.function("begins").remote()

    def function(self, name: str) -> Any:
        found = modal.Function.from_name(APP, name, client=self._client)
        found.hydrate()
        return found

    def cold_start(self) -> float:
        """From ``spawn`` to the first line of the function, in a new container."""
        return self._cold("begins")

    def cold_start_with_empty_volume(self) -> float:
        """Measure the same in a container with an empty Volume."""
        return self._cold("begins_with_empty_volume")

    def cold_start_with_large_volume(self) -> float:
        """Measure the same in a container with a large Volume: many files and a large one."""
        self.function("fill").remote(LARGE_VOLUME_FILES, LARGE_VOLUME_MEGABYTES)
        return self._cold("begins_with_large_volume")

    def _cold(self, name: str) -> float:
        begins = self.function(name)
        figures = []
        for _ in range(5):
            asked = time.time()
            figures.append(begins.spawn().get(timeout=60) - asked)
        return float(1000 * statistics.median(figures))

    def warm_call(self) -> float:
        """Measure from ``spawn`` to the result, in an existing container."""
        return 1000 * statistics.median(self._warm(200))

    def warm_call_p95(self) -> float:
        """Measure the same at the 95th percentile."""
        return 1000 * statistics.quantiles(self._warm(200), n=20)[-1]

    def _warm(self, number: int) -> list[float]:
        nothing = self.function("nothing")
        nothing.remote()
        figures = []
        for _ in range(number):
            asked = time.perf_counter()
            nothing.spawn().get(timeout=60)
            figures.append(time.perf_counter() - asked)
        return figures

    def cold_starts_at_once(self) -> float:
        """From the first of 20 spawns to the first line of the last one's function."""
        begins = self.function("begins_and_stays")
        asked = time.time()
        calls = _together(begins, [(3.0,)] * 20)
        return float(max(call.get(timeout=120) for call in calls)) - asked

    def spawns_per_second(self) -> float:
        """1,000 spawns, 100 at a time, of one client."""
        waits = self.function("waits")
        first = waits.spawn(600)
        asked = time.perf_counter()
        calls = _together(waits, [(0.0,)] * 1000, at_once=100)
        rate = 1000 / (time.perf_counter() - asked)
        _cancel([*calls, first])
        return rate

    def mapped_per_second(self) -> float:
        """Measure the inputs of a map a second, from its call to its last result, in existing containers."""
        return MAPPED / self._mapped.seconds

    def cpu_of_mapped(self) -> float:
        """Measure the processor time of an input of this map."""
        return 1000 * self._mapped.cpu / MAPPED

    def cpu_of_mapped_in_control_plane(self) -> float:
        """Measure the control plane's part of it."""
        return 1000 * self._mapped.cpu_of_control_plane / MAPPED

    @functools.cached_property
    def _mapped(self) -> Mapped:
        nothing = self.function("nothing_at_once")
        nothing.for_each(range(1000))
        processes = [os.getpid(), self._local.pid, *machine.below(self._local.pid)]
        before, before_of_control_plane = machine.cpu_seconds(processes), machine.cpu_seconds([self._local.pid])
        asked = time.perf_counter()
        nothing.for_each(range(MAPPED))
        return Mapped(
            time.perf_counter() - asked,
            machine.cpu_seconds(processes) - before,
            machine.cpu_seconds([self._local.pid]) - before_of_control_plane,
        )

    def memory_per_container(self) -> float:
        """Measure the proportional set size of an idle container's processes, with ten containers."""
        before = set(machine.below(self._local.pid))
        calls = _together(self.function("stays"), [(2.0,)] * 10)
        for call in calls:
            call.get(timeout=120)
        containers = set(machine.below(self._local.pid)) - before
        return sum(machine.memory(pid) for pid in containers) / 10

    def memory_of_the_rest(self) -> float:
        """Measure the same of the control plane and the process for container starts."""
        processes = [self._local.pid, *machine.below(self._local.pid)[:1]]
        return sum(machine.memory(pid) for pid in processes)

    def idle_cpu(self) -> float:
        """Measure the processor time of an idle control plane and container."""
        self.function("nothing").remote()
        time.sleep(1.0)
        processes = [self._local.pid, *machine.below(self._local.pid)]
        before, began = machine.cpu_seconds(processes), time.perf_counter()
        time.sleep(10.0)
        return 100 * (machine.cpu_seconds(processes) - before) / (time.perf_counter() - began)

    def queueing(self) -> dict[str, float]:
        """Measure 100,000 queued inputs: their rate, and their effect on a call of another function.

        The first and the last 10,000 come by ``spawn_map``, each as a separate call. The others come in one call, by
        the RPC of a map's inputs, without the SDK's work for each. That would take minutes.
        """
        waits = self.function("waits")
        first = waits.spawn(3600)
        empty = 1000 * statistics.median(self._warm(100))
        memory = machine.memory(self._local.pid)
        took = [_spawn_mapped(waits, 10_000)]
        self._put(waits, 80_000)
        took.append(_spawn_mapped(waits, 10_000))
        full = 1000 * statistics.median(self._warm(100))
        memory = machine.memory(self._local.pid) - memory
        first.cancel()
        return {
            "inputs queued a second, the first 10,000": 10_000 / took[0],
            "the last 10,000 of 100,000": 10_000 / took[-1],
            "warm call p50 before (ms)": empty,
            "warm call p50 with 100,000 queued (ms)": full,
            "memory of a queued input (kB)": 1024 * memory / 100_000,
        }

    def _put(self, function: Any, number: int) -> None:
        """Queue so many inputs in one call."""
        pickled = serialize(((0.0,), {}))

        async def put() -> None:
            stub: Any = getattr(self._client, "_stub", None) or getattr(self._client, "stub")  # noqa: B009
            call = await stub.FunctionMap(
                api_pb2.FunctionMapRequest(
                    function_id=function.object_id,
                    function_call_type=api_pb2.FUNCTION_CALL_TYPE_MAP,
                    function_call_invocation_type=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
                )
            )
            for first in range(0, number, PUT_AT_ONCE):
                inputs = [
                    api_pb2.FunctionPutInputsItem(
                        idx=idx, input=api_pb2.FunctionInput(args=pickled, data_format=api_pb2.DATA_FORMAT_PICKLE)
                    )
                    for idx in range(first, min(first + PUT_AT_ONCE, number))
                ]
                await stub.FunctionPutInputs(
                    api_pb2.FunctionPutInputsRequest(
                        function_id=function.object_id, function_call_id=call.function_call_id, inputs=inputs
                    )
                )

        # Connections belong to the SDK's own event loop.
        synchronizer.create_blocking(put)()


def _spawn_mapped(function: Any, number: int) -> float:
    """Spawn this many calls and return the seconds."""
    began = time.perf_counter()
    function.spawn_map([0.0] * number)
    return time.perf_counter() - began


def ready(**options: Any) -> float:
    """From the start of the program to its being ready, in seconds."""
    began = time.perf_counter()
    with LocalModal(**options):
        return time.perf_counter() - began


def _together(function: Any, arguments: list[tuple[Any, ...]], at_once: int = 1000) -> list[Any]:
    """Spawn once for each of the arguments, this many at a time."""
    calls: list[Any] = _run(lambda: _spawn_all(function, arguments, at_once))
    return calls


async def _spawn_all(function: Any, arguments: list[tuple[Any, ...]], at_once: int) -> list[Any]:
    turn = asyncio.Semaphore(at_once)

    async def spawn(given: tuple[Any, ...]) -> Any:
        async with turn:
            return await function.spawn.aio(*given)

    return list(await asyncio.gather(*(spawn(given) for given in arguments)))


def _cancel(calls: list[Any]) -> None:
    async def cancel() -> None:
        await asyncio.gather(*(call.cancel.aio() for call in calls))

    _run(cancel)


def _run(make: Callable[[], Any]) -> Any:
    return asyncio.run(make())
