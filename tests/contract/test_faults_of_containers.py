"""Containers, commits and clocks that go wrong on purpose, as a user of the SDK sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import modal
import pytest
from modal.exception import OutputExpiredError, RemoteError, ResourceExhaustedError
from modal_proto import api_pb2

from modalflow.emulator.calls.backlog import MAX_WAITING, SPAWN_RATE
from modalflow.emulator.faults.fault_control import FaultControl, FaultError
from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of, rpc
from tests.support import wait_until

pytestmark = pytest.mark.local_only

APP = "test-faults-of-containers"


@pytest.fixture
def faults(local: LocalModal) -> Iterator[FaultControl]:
    """The control plane's faults, all gone after the test."""
    yield local.faults
    local.faults.clear()


@pytest.fixture(scope="module")
def compute(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", APP, client)
    yield deployed
    deployed.stop()


def began(compute: Deployed, notes: modal.Dict, seconds: float) -> tuple[modal.FunctionCall[str], str]:
    """A call of `sleep` and the container in which it has begun."""
    notes.clear()
    call = compute.function("sleep").spawn(seconds, notes.name or "")
    return call, str(wait_until(lambda: notes.get("container"), 60))


def test_a_preempted_container_is_interrupted_and_its_input_runs_again(
    faults: FaultControl, compute: Deployed, notes: modal.Dict
) -> None:
    """The function sees an interrupt, and the same input runs in another container: no retry is needed for it."""
    call, first = began(compute, notes, 1.0)
    [running] = [each for each in faults.containers() if each.container_id == first]
    assert faults.now("preempt", app=APP, function="sleep") == [first]
    assert call.get(timeout=60) != first
    assert notes["interrupted"] == "KeyboardInterrupt"
    [graph] = call.get_call_graph()
    assert (graph.input_id,) == running.inputs
    assert graph.task_id != first


def test_a_killed_container_loses_its_input_to_another(
    faults: FaultControl, compute: Deployed, notes: modal.Dict
) -> None:
    """Nothing runs in it any more, and its input begins anew elsewhere."""
    call, first = began(compute, notes, 1.0)
    assert faults.now("kill", container=first) == [first]
    assert call.get(timeout=60) != first
    assert "interrupted" not in notes


def test_a_container_is_killed_at_the_point_that_was_named(
    faults: FaultControl, compute: Deployed, notes: modal.Dict
) -> None:
    """`at=input` with a count is the n-th input of the function, and `wait` is counted from there."""
    faults.add(f"container/{APP}/sleep:kill,at=input,after=1,count=1,wait=100ms")
    began(compute, notes, 0.0)[0].get(timeout=60)
    call, second = began(compute, notes, 0.5)
    assert call.get(timeout=60) != second
    [fault] = faults.list()
    assert [(each.subject, each.occasion) for each in fault.last] == [(f"{APP}/sleep", 2)]
    assert second in fault.last[0].what


def test_a_frozen_container_stands_still(faults: FaultControl, compute: Deployed) -> None:
    """For so long not one of its processes gets on; then it goes on as if nothing had been."""
    faults.add(f"container/{APP}/longest_pause:freeze=700ms,at=input,wait=1s,count=1")
    # On a loaded machine the code of an input begins late, and must not be over before the fault.
    assert compute.call("longest_pause", 20.0, "", 0.5) >= 0.5


def test_cleared_faults_let_go(faults: FaultControl, compute: Deployed, dict_: modal.Dict) -> None:
    """What was frozen or stopped for a long time goes on when the faults are cleared, and nothing planned happens."""
    call = compute.function("longest_pause").spawn(1.0)
    wait_until(lambda: any(each.function == "longest_pause" and each.inputs for each in faults.containers()))
    faults.now("freeze", "60s", app=APP, function="longest_pause")
    faults.now("kill", app=APP, function="longest_pause", wait="60s")
    faults.add("world:stop=60s")
    faults.clear()
    dict_["key"] = 1
    assert call.get(timeout=30) < 30


def test_a_crash_loop_ends_or_is_given_up(faults: FaultControl, compute: Deployed) -> None:
    """Two failed starts are survived; where every start fails, the caller reads why."""
    faults.add(f"container/{APP}/add:crash-start,count=2")
    assert compute.call("add", 2, 3) == 5
    assert faults.list()[0].happened == 2
    faults.clear()
    faults.add(f"container/{APP}/once:crash-start")
    with pytest.raises(RemoteError, match="ended on purpose"):
        compute.call("once")


def test_nothing_to_preempt_is_an_error(faults: FaultControl) -> None:
    """Whoever names a container that is not there, or what is no event, is told."""
    with pytest.raises(FaultError, match="no living container"):
        faults.now("preempt", container="ta-none")
    with pytest.raises(FaultError, match="add it as a rule"):
        faults.now("FunctionMap:unavailable")


def test_a_stopped_world_may_freeze_its_containers(faults: FaultControl, compute: Deployed, notes: modal.Dict) -> None:
    """With `containers=frozen` functions stand still as well, and nothing is lost."""
    call = compute.function("longest_pause").spawn(1.5, notes.name)
    wait_until(lambda: notes.get("began"), timeout=30.0)
    faults.now("stop", "600ms", containers="frozen")
    assert call.get(timeout=60) >= 0.4


def test_a_skewed_clock_ends_lifetimes(faults: FaultControl, compute: Deployed, dict_: modal.Dict) -> None:
    """Eight days on, results and Dict entries have expired; what is timed by durations goes on."""
    call = compute.function("add").spawn(1, 1)
    assert call.get(timeout=60) == 2
    dict_["key"] = 1
    faults.add("clock:skew=8d")
    with pytest.raises(OutputExpiredError):
        call.get(timeout=0)
    assert dict_.get("key") is None
    assert compute.call("add", 2, 2) == 4


def test_a_late_commit_shows_late(faults: FaultControl, client: modal.Client, name: str) -> None:
    """Until a delayed commit is carried out others see the old files, and commit() returns no sooner."""
    os.environ.update(TEST_VOLUME=name, TEST_VOLUME_VERSION="2")
    app = Deployed("volume_app", name, client)
    try:
        app.call("read", "file", False)
        faults.add(f"volume/{name}:delay-commit=1s")
        writing = app.function("write").spawn("file", "new", True)
        wait_until(lambda: faults.list()[0].happened, 60)
        began_at = time.monotonic()
        volume = modal.Volume.from_name(name, client=client)
        assert volume.listdir("/") == []
        writing.get(timeout=60)
        assert time.monotonic() - began_at >= 0.5
        assert [entry.path for entry in volume.listdir("/")] == ["file"]
    finally:
        faults.clear()
        app.stop()
        modal.Volume.objects.delete(name, client=client)


def test_too_many_inputs_at_once_are_refused(compute: Deployed) -> None:
    """More inputs than may wait are refused as a whole with ResourceExhaustedError: nothing of them is queued."""
    function = compute.function("add")
    function.hydrate()
    request = api_pb2.FunctionMapRequest(
        function_id=function.object_id,
        function_call_type=api_pb2.FUNCTION_CALL_TYPE_MAP,
        function_call_invocation_type=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC,
        pipelined_inputs=[api_pb2.FunctionPutInputsItem(idx=n) for n in range(MAX_WAITING + 1)],
    )
    with pytest.raises(ResourceExhaustedError, match="over the limit of 2000"):
        rpc(compute.client, "FunctionMap", request)
    assert function.get_current_stats().backlog == 0


def test_inputs_that_come_too_fast_are_refused_where_that_is_wanted() -> None:
    """With rate_limits a second's worth of spawned inputs gets in at once, and not another one."""
    given = LocalModal(rate_limits=True, max_containers=1)
    with given as local, client_of(local.url, local.env) as client:
        function = Deployed("compute_app", "limited", client).function("add").hydrate(client)
        request = api_pb2.FunctionMapRequest(
            function_id=function.object_id,
            function_call_type=api_pb2.FUNCTION_CALL_TYPE_MAP,
            function_call_invocation_type=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
            pipelined_inputs=[api_pb2.FunctionPutInputsItem(idx=n) for n in range(int(SPAWN_RATE))],
        )
        rpc(client, "FunctionMap", request)
        with pytest.raises(ResourceExhaustedError, match="faster than 1500 a second"):
            rpc(client, "FunctionMap", request)
