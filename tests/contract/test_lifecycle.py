"""How containers of a function come and go: hooks, startup timeouts, buffers, retries with backoff."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import modal
import pytest
from modal.exception import FunctionTimeoutError

from tests.contract.deploying import Deployed
from tests.contract.inspecting import containers, stop_container
from tests.support import wait_until


@pytest.fixture(scope="module")
def lifecycle(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("lifecycle_app", "test-lifecycle", client)
    yield deployed
    deployed.stop()


def hooks(lifecycle: Deployed, marker: str) -> Any:
    return modal.Cls.from_name(lifecycle.name, "Hooks", client=lifecycle.client)(marker=marker)


def test_enter_and_exit_hooks(lifecycle: Deployed, notes: modal.Dict, name: str) -> None:
    """enter() runs before the first input, snapshot hooks first; exit() when the container is scaled down."""
    assert hooks(lifecycle, name).so_far.remote() == ["snap", "enter"]
    wait_until(lambda: notes.get("left"), what="the exit hook", timeout=30)


def test_exit_hooks_run_when_a_container_is_stopped(lifecycle: Deployed, notes: modal.Dict, name: str) -> None:
    """A container that is stopped while it runs an input has time to run its exit hooks."""
    call = hooks(lifecycle, name).sleep.spawn(60)
    wait_until(lambda: notes.get("began"), what="the call's start", timeout=30)
    info = modal.FunctionCall.from_id(call.object_id, client=lifecycle.client)
    [running] = [c for c in containers(lifecycle.client, lifecycle.name) if c in _containers_of(info)]
    stop_container(lifecycle.client, running)
    wait_until(lambda: notes.get("left") == running, what="the exit hook", timeout=30)
    call.cancel(terminate_containers=True)


def test_a_startup_timeout(lifecycle: Deployed) -> None:
    """A container that takes longer to start than startup_timeout fails its inputs, and says so."""
    slow = modal.Cls.from_name(lifecycle.name, "SlowToEnter", client=lifecycle.client)()
    with pytest.raises(FunctionTimeoutError, match="startup timeout of 1 s"):
        slow.never.remote()


def test_buffer_containers(lifecycle: Deployed) -> None:
    """While a function is busy one more container than needed is there; later none."""
    function = lifecycle.function("buffered")
    call = function.spawn(1.5)
    wait_until(lambda: function.get_current_stats().num_total_runners == 2, what="the buffer", timeout=30)
    call.get(timeout=30)
    wait_until(lambda: not function.get_current_stats().num_total_runners, what="the scale-down", timeout=30)


def test_min_containers_and_the_autoscaler(lifecycle: Deployed) -> None:
    """min_containers are there without a call; what the autoscaler is told at run time counts at once."""
    function = lifecycle.function("warm")
    wait_until(lambda: function.get_current_stats().num_total_runners == 1, what="a warm container", timeout=30)
    _rescale(function, min_containers=2)
    wait_until(lambda: function.get_current_stats().num_total_runners == 2, what="a second one", timeout=30)
    _rescale(function, min_containers=0, scaledown_window=2)
    wait_until(lambda: not function.get_current_stats().num_total_runners, what="the scale-down", timeout=30)


def test_retries_wait_longer_each_time(lifecycle: Deployed, notes: modal.Dict, name: str) -> None:
    """Each input of a map is tried again by itself, after a delay that grows; what never works is returned as it is."""
    function = lifecycle.function("with_backoff")
    results = list(function.map([name] * 3, [1, 2, 3], [0, 2, 9], return_exceptions=True))
    assert len(results[0]) == 1
    waits = [later - earlier for earlier, later in pairwise(results[1])]
    assert waits[0] >= 0.4
    assert waits[1] >= 0.8
    assert isinstance(results[2], RuntimeError)
    assert len(notes[3]) == 4


def test_a_timeout_is_per_try(lifecycle: Deployed, notes: modal.Dict, name: str) -> None:
    """A try that runs out of time is followed by another one with a time of its own."""
    assert lifecycle.call("slow_at_first", name) == 2


def _containers_of(call: modal.FunctionCall[Any]) -> set[str]:
    return {info.task_id for info in call.get_call_graph()}


def _rescale(function: modal.Function[..., Any, Any], **settings: int) -> None:
    autoscaler = getattr(function, "autoscaler", None)
    # SDKs before 1.6 have the method alone, later ones say that it is on its way out.
    (autoscaler.update if autoscaler is not None else function.update_autoscaler)(**settings)
