"""Function calls after the end of a control plane."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.calls import RESULTS_KEPT, Calls
from modalflow.emulator.calls.function_call import FunctionCall, Input
from modalflow.emulator.containers import results
from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.outcomes import Outcomes
from modalflow.emulator.functions.function import Function
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.services.blobs import Blobs
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.state_dir import StateDir
from tests.support import Clock

CALLER = Caller(container_id=None, client_version="1", idempotency_key=None)
APP = App(environment="main", description="app", state=api_pb2.APP_STATE_DEPLOYED)
FUNCTION = Function(app=APP, tag="f", definition=api_pb2.Function(retry_policy=api_pb2.FunctionRetryPolicy(retries=9)))
FUNCTION.keep(1, copy_of=0, oldest=0)
FUNCTION.publish(1)


class OneFunction(Functions):
    """The only function there is, whatever app it is of."""

    def __init__(self) -> None:
        self._by_id = {FUNCTION.object_id: FUNCTION}


class Waiting:
    """Runs nothing: what is submitted waits, and can be cancelled while it runs in name."""

    def __init__(self) -> None:
        self.submitted: list[Input] = []

    def submit(self, *items: Input) -> None:
        self.submitted += items

    def running(self, function: Function) -> Iterable[Input]:
        return ()

    def cancel(self, items: Iterable[Input], *, terminate_containers: bool) -> None:
        for item in items:
            item.ending = results.terminated("cancelled")


class Kept:
    """Calls on a folder that outlives them."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.journal = Journal(folder)
        self.records = CallRecords(self.journal)
        self.runner = Waiting()
        functions = OneFunction()
        self.restored = self.records.load(functions)
        self.calls = Calls(functions, self.runner, self.records, self.restored.calls, clock=clock or Clock())

    async def map(self, *contents: bytes, parent: str = "") -> FunctionCall:
        request = api_pb2.FunctionMapRequest(
            function_id=FUNCTION.object_id, parent_input_id=parent, pipelined_inputs=inputs(*contents)
        )
        return self.calls.get((await self.calls.FunctionMap(request, CALLER)).function_call_id)

    async def outputs(self, call_id: str, *, clear: bool = False, **more: Any) -> api_pb2.FunctionGetOutputsResponse:
        request = api_pb2.FunctionGetOutputsRequest(function_call_id=call_id, clear_on_success=clear, **more)
        return await self.calls.FunctionGetOutputs(request, CALLER)

    def rows(self) -> dict[str, int]:
        return {kind: len(list(self.journal.read(kind))) for kind in ("calls", "inputs", "outputs", "chunks")}

    async def restart(self, clock: Clock | None = None) -> Kept:
        """Another instance, after all that was to be acknowledged is on disk and nothing else happened."""
        await self.journal.settled()
        self.journal.close()
        return Kept(self.folder, clock)


def inputs(*contents: bytes) -> list[api_pb2.FunctionPutInputsItem]:
    return [
        api_pb2.FunctionPutInputsItem(idx=idx, input=api_pb2.FunctionInput(args=content))
        for idx, content in enumerate(contents)
    ]


def success(data: bytes) -> api_pb2.GenericResult:
    return api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, data=data)


async def test_what_waits_is_to_run_again_in_its_order(tmp_path: Path) -> None:
    """Unfinished inputs come back with their ids, contents and used tries, in the order of all calls together."""
    first = Kept(tmp_path)
    one = await first.map(b"1")
    two = await first.map(b"2", b"3", parent=next(iter(one.inputs)))
    put = api_pb2.FunctionPutInputsRequest(function_call_id=one.call_id, inputs=inputs(b"4"))
    await first.calls.FunctionPutInputs(put, CALLER)
    running = first.runner.submitted[1]
    running.retries, running.crashes, running.container_id, running.started_at = 2, 1, "ta-1", 5.0
    running.save()
    one.resolve(first.runner.submitted[0], success(b"done"))

    second = await first.restart()
    waiting = second.restored.waiting
    assert [item.content.args for item in waiting] == [b"2", b"3", b"4"]
    assert [item.input_id for item in waiting] == [item.input_id for item in first.runner.submitted[1:]]
    assert [(item.retries, item.crashes) for item in waiting] == [(2, 1), (0, 0), (0, 0)]
    assert waiting[0].container_id == "", "its container is gone"
    assert second.calls.get(two.call_id).parent_input_id == next(iter(one.inputs))
    assert second.calls.get(two.call_id).created_at == two.created_at


async def test_results_and_what_is_told_of_inputs(tmp_path: Path) -> None:
    """Outputs are the same, at the same places for a client in the middle of a map; and so is the call's info."""
    first = Kept(tmp_path)
    call = await first.map(b"a", b"b", b"c")
    for place, number in enumerate((2, 0)):
        item = first.runner.submitted[number]
        item.container_id, item.started_at = "ta-1", 1.0
        call.resolve(item, success(b"result of %d" % number), api_pb2.DATA_FORMAT_PICKLE)
        assert item.place == place
    before, seen = await first.outputs(call.call_id), await first.outputs(call.call_id, max_values=1)
    second = await first.restart()
    assert await second.outputs(call.call_id) == before
    further = await second.outputs(call.call_id, last_entry_id=seen.last_entry_id)
    assert list(further.outputs) == [before.outputs[1]]
    assert further.num_unfinished_inputs == 1
    assert second.calls.get(call.call_id).info == call.info
    second.calls.get(call.call_id).resolve(second.restored.waiting[0], success(b"last"))
    assert [o.idx for o in (await second.outputs(call.call_id)).outputs] == [2, 0, 1]


async def test_what_was_cleared_stays_cleared(tmp_path: Path) -> None:
    """Outputs that a client took for good do not come back, one by one or all at once; nor do they stay on disk."""
    first = Kept(tmp_path)
    single, several = await first.map(b"1"), await first.map(b"2", b"3", b"4")
    for item in first.runner.submitted:
        item.call.resolve(item, success(b"x"))
    await first.outputs(single.call_id, clear=True)
    await first.outputs(several.call_id, clear=True, start_idx=1, end_idx=1)
    second = await first.restart()
    assert not (await second.outputs(single.call_id)).outputs
    assert [o.idx for o in (await second.outputs(several.call_id)).outputs] == [0, 2]
    assert second.rows()["outputs"] == 2
    await second.outputs(several.call_id, clear=True)
    third = await second.restart()
    assert not (await third.outputs(several.call_id)).outputs
    assert third.rows()["outputs"] == 0
    assert third.calls.get(several.call_id).info.succeeded_inputs.total == 3


async def test_a_cancellation_outlives_the_control_plane(tmp_path: Path) -> None:
    """An input that was cancelled and had not ended is restored with that end; one out of time is to run again."""
    first = Kept(tmp_path)
    cancelled, late = await first.map(b"1"), await first.map(b"2")
    await first.calls.FunctionCallCancel(api_pb2.FunctionCallCancelRequest(function_call_id=cancelled.call_id), CALLER)
    first.runner.submitted[1].ending = results.timed_out("ta-1", 5)
    first.runner.submitted[1].save()
    second = await first.restart()
    assert [item.ending for item in second.restored.waiting] == [results.terminated("cancelled"), None]
    assert second.restored.waiting[1].call.call_id == late.call_id


async def test_counts_are_kept_as_they_change(tmp_path: Path) -> None:
    """Retries and crashes that were used up stay so, without anybody asking for them to be saved."""
    first = Kept(tmp_path)
    await first.map(b"1")
    [item] = first.runner.submitted
    outcomes = Outcomes(first.runner.submit, first.runner.submit)
    outcomes.container_lost(Container(FUNCTION), item, -9, "exited")
    outcomes.settle(item, api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE))
    second = await first.restart()
    assert [(item.retries, item.crashes) for item in second.restored.waiting] == [(1, 1)]


async def test_a_generator_that_runs_again_does_not_repeat_itself(tmp_path: Path) -> None:
    """What it had yielded stays, and its second run adds what is new: every reader sees one sequence."""
    first = Kept(tmp_path)
    call = await first.map(b"1")
    call.yielded([api_pb2.DataChunk(index=1, data=b"a"), api_pb2.DataChunk(index=2, data=b"b")])
    second = await first.restart()
    call = second.calls.get(call.call_id)
    again = [api_pb2.DataChunk(index=n, data=data) for n, data in ((1, b"A"), (2, b"B"), (3, b"C"))]
    second.restored.waiting[0].container_id = "ta-second"
    await second.calls.FunctionCallPutDataOut(
        api_pb2.FunctionCallPutDataRequest(function_call_id=call.call_id, data_chunks=again),
        dataclasses.replace(CALLER, container_id="ta-second"),
    )
    call.resolve(second.restored.waiting[0], success(b""))
    third = await second.restart()
    request = api_pb2.FunctionCallGetDataRequest(function_call_id=call.call_id)
    assert [c.data async for c in third.calls.FunctionCallGetDataOut(request, CALLER)] == [b"a", b"b", b"C"]


async def test_results_expire_a_week_after_the_last(tmp_path: Path) -> None:
    """Then the answer is what the SDK makes OutputExpiredError of, over a restart too, and nothing is left on disk."""
    clock = Clock()
    first = Kept(tmp_path, clock)
    call, unfinished = await first.map(b"1", b"2"), await first.map(b"3")
    for item in list(call.inputs.values()):
        call.resolve(item, success(b"x"))
    clock.now = call.last_result_at + RESULTS_KEPT - 1
    assert len((await first.outputs(call.call_id)).outputs) == 2

    clock.now += 2
    for kept in (first, await first.restart(clock)):
        expired = await kept.outputs(call.call_id)
        assert not expired.outputs and not expired.num_unfinished_inputs
        assert (await kept.outputs(unfinished.call_id)).num_unfinished_inputs == 1
    await kept.journal.settled()
    assert kept.rows() == {"calls": 1, "inputs": 1, "outputs": 0, "chunks": 0}


async def test_blobs_live_as_long_as_what_they_hold(tmp_path: Path) -> None:
    """A large argument or result is kept while its call may need it, over restarts; one of nobody's goes."""
    first = Kept(tmp_path / "records")
    names = ("bl-argument", "bl-result", "bl-chunk", "bl-done", "bl-old", "bl-new")
    state = StateDir(tmp_path / "state")
    blobs = Blobs(state, Addresses(state))
    for name in names:
        (tmp_path / "state" / "blobs" / name).touch()
        if name != "bl-new":
            os.utime(tmp_path / "state" / "blobs" / name, (0, 0))
    call = await first.map(b"1", b"2")
    done, waiting = first.runner.submitted
    waiting.content.args_blob_id, done.content.args_blob_id = "bl-argument", "bl-done"
    waiting.save()
    call.yielded([api_pb2.DataChunk(index=1, data_blob_id="bl-chunk")])
    call.resolve(done, api_pb2.GenericResult(data_blob_id="bl-result"))
    blobs.remove_unused((await first.restart()).calls.blobs)
    left = {path.name for path in (tmp_path / "state" / "blobs").iterdir()}
    assert left == {"bl-argument", "bl-result", "bl-chunk", "bl-new"}


async def test_progress_writes_what_is_new_alone(tmp_path: Path) -> None:
    """A result of a big map costs one record and a short one of its input, whatever else there is of the map."""
    kept = Kept(tmp_path)
    call = await kept.map(*(b"x" * 1000 for _ in range(500)))
    await kept.journal.settled()
    statements: list[str] = []
    connection = kept.journal._connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    call.resolve(kept.runner.submitted[250], success(b"y"))
    await kept.journal.settled()
    written = [s for s in statements if s.startswith(("INSERT", "DELETE"))]
    assert len(written) == 2 and sum(map(len, written)) < 2_000


class Restarts(RuleBasedStateMachine):
    """Calls that are restarted at any time tell the same as calls that never are."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self.kept = Kept(Path(self._folder.name))
        self.contents: dict[str, bytes] = {}
        self.results: dict[str, list[tuple[int, bytes, bool]]] = {}
        """Of each call: (idx, data, whether it was cleared) in the order in which they came."""

    def teardown(self) -> None:
        self.kept.journal.close()
        self._folder.cleanup()
        self.loop.close()

    @property
    def open(self) -> list[Input]:
        return [i for c in self.kept.calls._calls.values() for i in c.inputs.values() if not i.done]

    @rule(contents=st.lists(st.binary(max_size=5), max_size=4))
    def map(self, contents: list[bytes]) -> None:
        call = self.loop.run_until_complete(self.kept.map(*contents))
        self.results[call.call_id] = []
        self.contents |= {i.input_id: c for i, c in zip(call.inputs.values(), contents, strict=True)}

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.open))
        result = data.draw(st.binary(max_size=5))
        item.call.resolve(item, success(result))
        self.results[item.call.call_id].append((item.idx, result, False))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.open))
        item.retries += 1
        item.save()

    @precondition(lambda self: self.results)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.results)))
        after = data.draw(st.integers(0, 3))
        self.loop.run_until_complete(self.kept.outputs(call_id, clear=True, last_entry_id=f"{after}-0"))
        told = self.results[call_id]
        self.results[call_id] = [(idx, body, gone or n >= after) for n, (idx, body, gone) in enumerate(told)]

    @rule()
    def restart(self) -> None:
        retries = {item.input_id: item.retries for item in self.open}
        self.kept.journal.close()
        self.kept = Kept(Path(self._folder.name))
        assert {item.input_id: item.retries for item in self.open} == retries
        assert [item.input_id for item in self.kept.restored.waiting] == list(retries)

    @invariant()
    def told_as_ever(self) -> None:
        for call_id, expected in self.results.items():
            told = self.loop.run_until_complete(self.kept.outputs(call_id))
            assert [(o.idx, o.result.data) for o in told.outputs] == [(i, d) for i, d, gone in expected if not gone]
        for item in self.open:
            assert item.content.args == self.contents[item.input_id]


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
