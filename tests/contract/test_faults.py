"""What a user of the SDK sees of a control plane that misbehaves on purpose."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import modal
import pytest
from modal.exception import AuthError, ConnectionError, ResourceExhaustedError, ServiceError
from modal_proto import api_pb2

from modalflow.emulator.faults.fault_control import FaultControl, FaultError
from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of, rpc
from tests.support import wait_until

pytestmark = pytest.mark.local_only


@pytest.fixture
def faults(local: LocalModal) -> Iterator[FaultControl]:
    """The control plane's faults, all gone after the test."""
    yield local.faults
    local.faults.clear()


@pytest.fixture(scope="module")
def compute(client: modal.Client) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", "test-faults", client)
    yield deployed
    deployed.stop()


def happened(faults: FaultControl) -> list[int]:
    return [fault.happened for fault in faults.list()]


def test_retries_hide_what_passes(faults: FaultControl, dict_: modal.Dict) -> None:
    """The SDK tries again after what is passing, so its user sees nothing of it."""
    for kind in ("unavailable", "internal", "unknown", "cancelled", "deadline-exceeded", "lost-reply=disconnect"):
        faults.add(f"DictUpdate:{kind},count=1")
        dict_[kind] = 1
        assert happened(faults) == [1], kind
        faults.clear()
    assert dict(dict_.items()).keys() == {
        "unavailable",
        "internal",
        "unknown",
        "cancelled",
        "deadline-exceeded",
        "lost-reply=disconnect",
    }


def test_what_does_not_pass_is_raised(faults: FaultControl, dict_: modal.Dict) -> None:
    """After three more tries the user gets the error, with the fault's specification in it."""
    faults.add("DictGet:unavailable")
    with pytest.raises((ConnectionError, ServiceError), match="DictGet:unavailable"):
        dict_.get("anything")
    assert happened(faults) == [4]


@pytest.mark.parametrize("kind", ["unavailable-after", "lost-reply", "lost-reply=disconnect"])
def test_a_spawn_whose_answer_was_lost_is_not_doubled(faults: FaultControl, compute: Deployed, kind: str) -> None:
    """The second try of the SDK gets the function call that the first one made: one input in all."""
    function = compute.function("add")
    before = _total_inputs(function)
    faults.add(f"FunctionMap:{kind},count=1")
    call = function.spawn(2, 3)
    assert happened(faults) == [1]
    assert call.get(timeout=60) == 5
    assert _total_inputs(function) == before + 1


def _total_inputs(function: modal.Function[..., int, int]) -> int:
    function.hydrate()
    listed = rpc(function.client, "FunctionCallList", api_pb2.FunctionCallListRequest(function_id=function.object_id))
    return sum(call.total_inputs for call in listed.function_calls)


def test_a_claim_whose_answer_was_lost_is_the_claimants(faults: FaultControl, dict_: modal.Dict) -> None:
    """A retried `put(skip_if_exists=True)` tells what the first one did."""
    faults.add("DictUpdate:unavailable-after,count=1")
    assert dict_.put("work", "mine", skip_if_exists=True)
    assert not dict_.put("work", "theirs", skip_if_exists=True)


def test_exhausted_without_a_policy_is_an_error(faults: FaultControl, compute: Deployed) -> None:
    """RESOURCE_EXHAUSTED alone reaches the caller of spawn at once."""
    function = compute.function("add")
    function.hydrate()
    faults.add("FunctionMap:resource-exhausted,count=1")
    with pytest.raises(ResourceExhaustedError):
        function.spawn(1, 1)
    assert happened(faults) == [1]


def test_exhausted_with_a_policy_waits(faults: FaultControl, compute: Deployed) -> None:
    """With RPCRetryPolicy the SDK waits as long as it is told, as often as it is told, and succeeds."""
    function = compute.function("add")
    function.hydrate()
    faults.add("FunctionMap:resource-exhausted,retry-after=200ms,count=5")
    began = time.monotonic()
    assert function.spawn(1, 1).get(timeout=60) == 2
    assert happened(faults) == [5]
    assert time.monotonic() - began >= 1.0


def test_a_rotated_token(faults: FaultControl, local: LocalModal, dict_: modal.Dict) -> None:
    """UNAUTHENTICATED is AuthError, and is not tried again."""
    faults.add("DictGet:unauthenticated,for=clients")
    with pytest.raises(AuthError):
        dict_.get("anything")
    assert happened(faults) == [1]


def test_a_delay_delays(faults: FaultControl, dict_: modal.Dict) -> None:
    """A call is answered later by what was drawn, and the listing tells how much that was."""
    faults.add("DictGet:delay=120ms±20ms,count=1")
    began = time.monotonic()
    dict_.get("anything")
    took = time.monotonic() - began
    told = faults.list()[0].last[0].what
    assert took >= 0.1
    assert 100.0 <= float(told.split()[0]) <= 140.0


def test_a_held_reply_comes_when_the_fault_is_gone(faults: FaultControl, dict_: modal.Dict, local: LocalModal) -> None:
    """While it lasts it never comes; cleared, the stream is reset and the SDK's next try is answered."""
    held = faults.add("DictUpdate:lost-reply=held,count=1")
    writer = threading.Thread(target=dict_.put, args=("key", 1))
    writer.start()
    wait_until(lambda: happened(faults) == [1])
    assert dict_["key"] == 1
    assert writer.is_alive()
    faults.clear([held.id])
    writer.join(10)
    assert not writer.is_alive()


def test_a_stream_breaks_after_its_first_message(faults: FaultControl, dict_: modal.Dict) -> None:
    """Of a stream an -after fault lets one message through and then breaks it."""
    dict_.update({f"key {n}": n for n in range(10)})
    faults.add("DictContents:unavailable-after,count=1")
    found = []
    with pytest.raises(Exception, match="On purpose"):
        for key in dict_.keys():  # noqa: SIM118
            found.append(key)
    assert len(found) == 1


def test_queue_items_are_lost(faults: FaultControl, queue_: modal.Queue) -> None:
    """What was put and lost is never got; what was got and lost is gone."""
    faults.add("queue:lose-put,every=2")
    queue_.put_many(list(range(6)))
    assert queue_.get_many(10, block=False) == [1, 3, 5]
    faults.clear()
    queue_.put_many(["first", "second"])
    faults.add("queue:lose-get,count=1")
    assert queue_.get(block=False) is None
    assert queue_.get(block=False) == "second"


def test_dict_entries_expire_early(faults: FaultControl, dict_: modal.Dict) -> None:
    """An entry is gone when it is asked for, and a claim on it can be made again."""
    dict_["work"] = "mine"
    faults.add("dict:expire,after=1,count=1")
    assert dict_.get("work") == "mine"
    assert dict_.put("work", "theirs", skip_if_exists=True)
    assert dict_["work"] == "theirs"


def test_a_stopped_world_answers_nothing_and_then_everything(faults: FaultControl, dict_: modal.Dict) -> None:
    """For so long as it was told to, a call waits; then it is answered as if nothing had been."""
    dict_["key"] = 1
    faults.now("stop", "500ms")
    began = time.monotonic()
    assert dict_["key"] == 1
    assert time.monotonic() - began >= 0.3


def test_a_map_over_a_bad_network_is_complete(faults: FaultControl, compute: Deployed) -> None:
    """Answers of every kind get lost on both sides, and still each input has its one result."""
    compute.call("add", 0, 0)
    for rpc_name in ("FunctionMap", "FunctionPutInputs", "FunctionGetInputs", "FunctionPutOutputs"):
        faults.add(f"{rpc_name}:lost-reply,every=3")
    faults.add("FunctionGetOutputs:unavailable-after,every=3")
    faults.add("*:delay=exponential(2ms)")
    assert list(compute.function("add").map(range(40), range(40))) == [2 * n for n in range(40)]
    assert all(count for count in happened(faults)[2:])


def test_only_who_has_the_token_may_misbehave(local: LocalModal) -> None:
    """The control endpoint refuses any other token, a container's credentials among them."""
    stranger = FaultControl(local.address.control_url, "ak-wrong", "as-wrong")
    for attempt in (stranger.list, stranger.clear, stranger.containers):
        with pytest.raises(FaultError, match="Token missing or invalid"):
            attempt()
    with pytest.raises(FaultError, match="Token missing or invalid"):
        stranger.add("*:unavailable")
    assert local.faults.list() == []


def test_from_the_start_with_a_seed() -> None:
    """Latency and faults given at the start count from the first call; the same seed gives the same ones."""
    patterns = []
    for _ in range(2):
        given = LocalModal(latency="1ms", faults=["DictUpdate:unavailable-after,p=0.5"], fault_seed=7)
        with given as local, client_of(local.url, local.env) as client:
            with modal.Dict.ephemeral(client=client) as dict_:
                for number in range(8):
                    dict_[number] = number
            latency, unavailable = local.faults.list()
            assert latency.spec == "*:delay=1ms,for=clients"
            assert latency.happened >= 8
            patterns.append([each.occasion for each in unavailable.last])
    assert patterns[0] == patterns[1] != []
