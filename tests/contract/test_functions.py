"""Calling functions: results, failures, retries, timeouts, cancellation, options, classes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import modal
import pytest
from modal.exception import (
    ExecutionError,
    FunctionTimeoutError,
    NotFoundError,
    RemoteError,
)

from tests.contract.deploying import Deployed
from tests.contract.inspecting import containers
from tests.support import wait_until


@pytest.fixture(scope="module")
def compute(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", "test-functions", client)
    yield deployed
    deployed.stop()


def test_spawn_and_get(compute: Deployed) -> None:
    """What a function returns reaches whoever gets the call, as often as they ask, by handle or by id."""
    call = compute.function("add").spawn(2, 3)
    assert call.get(timeout=60) == 5
    assert call.get(timeout=0) == 5
    assert modal.FunctionCall.from_id(call.object_id, client=compute.client).get(timeout=0) == 5


def test_remote_and_map(compute: Deployed) -> None:
    """remote() waits for the result; map() gives results in the order of its inputs."""
    add = compute.function("add")
    assert add.remote(1, 1) == 2
    assert list(add.map(range(20), range(20))) == [2 * n for n in range(20)]


def test_spawn_map_runs_every_input(compute: Deployed) -> None:
    """The results of one call of many inputs can be had one by one."""
    call = compute.function("add").experimental_spawn_map([1, 2, 3], [10, 20, 30])
    assert [call.get(timeout=60, index=i) for i in range(3)] == [11, 22, 33]


def test_get_of_an_unfinished_call_times_out(compute: Deployed, notes: modal.Dict, name: str) -> None:
    """get(timeout=0) of a call that still runs is the builtin TimeoutError."""
    call = compute.function("sleep").spawn(30, name)
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    call.cancel(terminate_containers=True)


def test_large_values_go_there_and_back(compute: Deployed) -> None:
    """Arguments and results above the inline limits (8 KiB asynchronous, 2 MiB in all) arrive unharmed."""
    for size in (9_000, 3 * 1024 * 1024):
        data = bytes(range(256)) * (size // 256)
        assert compute.call("echo", data) == data


def test_an_exception_reaches_the_caller(compute: Deployed) -> None:
    """The caller gets the exception that the function raised, with its type and text."""
    with pytest.raises(ValueError, match="not today"):
        compute.call("fail", "not today")


def test_an_unknown_function_is_not_found(compute: Deployed) -> None:
    """Looking up what was never deployed is NotFoundError, for functions and for apps."""
    with pytest.raises(NotFoundError):
        compute.function("nothing_like_it").hydrate()
    with pytest.raises(NotFoundError):
        modal.Function.from_name("no-such-app", "add", client=compute.client).hydrate()


def test_a_function_is_retried_as_its_policy_says(compute: Deployed, notes: modal.Dict, name: str) -> None:
    """With two retries the third try's result counts, for a spawn as well."""
    assert compute.call("fails_at_first", name, 2) == 3


def test_retries_run_out(compute: Deployed, notes: modal.Dict, name: str) -> None:
    """After the last retry the caller gets the last exception."""
    with pytest.raises(RuntimeError, match="try 3"):
        compute.call("fails_at_first", name, 9)
    assert notes["tries"] == 3


def test_timeout(compute: Deployed) -> None:
    """A function that takes longer than its timeout is FunctionTimeoutError, which says how long that was."""
    with pytest.raises(FunctionTimeoutError, match="1 s"):
        compute.call("out_of_time", 60)


def test_what_ignores_its_timeout_is_killed(compute: Deployed, notes: modal.Dict, name: str) -> None:
    """A function that catches whatever is thrown at it ends all the same, with its container."""
    began = time.monotonic()
    with pytest.raises(FunctionTimeoutError):
        compute.call("ignores_its_timeout", name)
    assert time.monotonic() - began < 20
    wait_until(lambda: not _is_listed(compute, notes["container"]), what="the container's end")


@pytest.mark.parametrize("terminate", [False, True], ids=["input only", "with its container"])
def test_cancel_of_a_running_call(compute: Deployed, notes: modal.Dict, name: str, terminate: bool) -> None:
    """A cancelled call ends soon, as RemoteError; its container only if that was asked for."""
    call = compute.function("sleep").spawn(120, name)
    container = wait_until(lambda: notes.get("container"), what="the function's start", timeout=30)
    began = time.monotonic()
    call.cancel(terminate_containers=terminate)
    with pytest.raises(RemoteError, match="cancelled"):
        call.get(timeout=30)
    assert time.monotonic() - began < 5
    assert (notes.get("interrupted") == "InputCancellation") is not terminate
    if terminate:
        wait_until(lambda: not _is_listed(compute, container), what="the container's end")
    else:
        assert compute.call("sleep", 0, name) == container, "the container lives on and takes the next input"


def test_cancel_of_a_waiting_call(compute: Deployed) -> None:
    """A call that no container took yet is cancelled at once and never runs."""
    function = compute.function("one_at_a_time")
    first, second = function.spawn(2.0), function.spawn(0.0)
    second.cancel()
    with pytest.raises(RemoteError, match="cancelled"):
        second.get(timeout=5)
    first.get(timeout=60)


def test_a_second_cancel_is_harmless(compute: Deployed) -> None:
    """Cancelling what has ended changes nothing."""
    call = compute.function("add").spawn(1, 2)
    assert call.get(timeout=60) == 3
    call.cancel()
    assert call.get(timeout=0) == 3


def test_generator(compute: Deployed) -> None:
    """What a generator yields comes in order, and ends."""
    assert list(compute.function("count").remote_gen(5)) == [0, 1, 2, 3, 4]


def test_a_function_calls_another(compute: Deployed) -> None:
    """Inside a container the app's functions are called as from outside."""
    assert compute.call("adds_up", [1, 2, 3]) == 6


def test_batches(compute: Deployed) -> None:
    """Inputs that come together are handed to a batched function together, up to its size."""
    answers = list(compute.function("in_batches").map([1, 2, 3]))
    assert [n for n, _ in answers] == [1, 2, 3]
    assert max(size for _, size in answers) > 1


def test_classes_and_parameters(compute: Deployed) -> None:
    """Methods run after enter(); each set of parameters has containers of its own."""
    greeter = modal.Cls.from_name(compute.name, "Greeter", client=compute.client)
    assert greeter().greet.remote("Ada") == "Hello, Ada"
    assert greeter(greeting="Bye").greet.remote("Ada") == "Bye, Ada"
    assert greeter().where.remote() != greeter(greeting="Bye").where.remote()


def test_a_class_is_not_a_function(compute: Deployed) -> None:
    """Looking a class up as a function fails with the way to do it."""
    with pytest.raises(NotFoundError, match=r"Cls\.from_name"):
        compute.function("Greeter").hydrate()


def test_options_make_a_pool_of_their_own(compute: Deployed) -> None:
    """with_options() takes effect, and never in a container that was started without them."""
    plain = compute.function("environment")
    changed = plain.with_options(env={"FROM_OPTIONS": "here"}, timeout=77)
    before, after = plain.remote(), changed.remote()
    assert "FROM_OPTIONS" not in before
    assert after["FROM_OPTIONS"] == "here"
    assert after["MODAL_TASK_ID"] != before["MODAL_TASK_ID"]
    assert changed.remote()["MODAL_TASK_ID"] == after["MODAL_TASK_ID"]


def test_options_change_the_timeout(compute: Deployed) -> None:
    """A timeout given with with_options() is the one that counts."""
    with pytest.raises(FunctionTimeoutError):
        compute.function("sleep").with_options(timeout=1).spawn(60, "unused").get(timeout=60)


def test_stats(compute: Deployed) -> None:
    """The backlog and the containers of a function can be asked for."""
    function = compute.function("one_at_a_time")
    calls = [function.spawn(0.5) for _ in range(3)]
    wait_until(lambda: function.get_current_stats().num_total_runners, timeout=30, what="a container")
    stats = function.get_current_stats()
    assert stats.num_total_runners == 1
    assert stats.backlog >= 1
    for call in calls:
        call.get(timeout=60)
    assert function.get_current_stats().backlog == 0


def test_what_is_not_emulated_says_so(client: modal.Client, name: str) -> None:
    """An app that needs what the local control plane does not have is refused when it is deployed."""
    app = modal.App(name)
    app.function(schedule=modal.Period(days=1), serialized=True, name="scheduled")(lambda: None)
    with pytest.raises(Exception, match="does not have schedules"):
        app.deploy(client=client)


def test_an_import_error_reaches_the_caller(client: modal.Client, name: str) -> None:
    """A function whose module cannot be imported in its container fails, after a few tries, with that very error."""
    broken = Deployed("broken_app", name, client)
    try:
        with pytest.raises((ImportError, ExecutionError), match="no such luck"):
            broken.call("never")
    finally:
        broken.stop()


def _is_listed(compute: Deployed, container_id: str) -> bool:
    return container_id in containers(compute.client)
