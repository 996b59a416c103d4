"""What the dispatcher is told about a call, without a network."""

from __future__ import annotations

import time
from typing import Any

import pytest
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.faults.rpc_faults import RpcFaults
from modalflow.emulator.faults.rules import Rules
from modalflow.emulator.faults.stoppage import Stoppage
from modalflow.emulator.rpc.handlers import Handlers
from modalflow.emulator.rpc.service import Caller

CLIENT, CONTAINER = Caller(None, "", None), Caller("ta-1", "", None)


class Objects(Handlers):
    """Stands for the services that answer about a Queue or a Dict."""

    def __init__(self) -> None:
        super().__init__([])
        self.entries = {b"k": b"v"}

    async def carry_out(self, name: str, request: Any) -> Any:
        if name == "QueueGetById":
            return api_pb2.QueueGetByIdResponse(metadata=api_pb2.QueueMetadata(name=request.queue_id))
        if name == "DictGetById":
            return api_pb2.DictGetByIdResponse(metadata=api_pb2.DictMetadata(name=request.dict_id))
        assert name == "DictPop"
        return api_pb2.DictPopResponse(found=self.entries.pop(request.key, None) is not None)


def faults(*specs: str) -> tuple[RpcFaults, Rules, Objects]:
    objects = Objects()
    rules = Rules(1)
    made = RpcFaults(rules, objects, Stoppage())
    for spec in specs:
        rules.add(spec)
    made.refresh()
    return made, rules, objects


async def test_only_the_callers_it_is_for_are_concerned() -> None:
    """`for=containers` leaves clients alone, and does not count them."""
    made, rules, _ = faults("DictGet:unavailable,for=containers")
    assert await made.admit("DictGet", api_pb2.DictGetRequest(), CLIENT) is None
    with pytest.raises(GRPCError) as caught:
        await made.admit("DictGet", api_pb2.DictGetRequest(), CONTAINER)
    assert caught.value.status is Status.UNAVAILABLE
    assert [rule.seen for rule in rules] == [1]


async def test_a_retry_policy_is_sent_only_where_one_is_asked_for() -> None:
    """RESOURCE_EXHAUSTED comes with RPCRetryPolicy if the fault says how long to wait."""
    made, _, _ = faults("QueuePut:resource-exhausted,count=1,retry-after=2s", "QueuePut:resource-exhausted,after=1")
    details = []
    for _ in range(2):
        with pytest.raises(GRPCError) as caught:
            await made.admit("QueuePut", api_pb2.QueuePutRequest(), CLIENT)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        details.append(caught.value.details)
    assert details == [[api_pb2.RPCRetryPolicy(retry_after_secs=2.0)], None]


async def test_the_first_rule_wins_and_the_others_stay_in_step() -> None:
    """Where two rules would answer, the first does; the second has counted the call all the same."""
    made, rules, _ = faults("DictGet:internal,count=1", "DictGet:unavailable,count=1")
    with pytest.raises(GRPCError, match="internal"):
        await made.admit("DictGet", api_pb2.DictGetRequest(), CLIENT)
    assert [rule.seen for rule in rules] == [1, 1]


async def test_items_are_lost_from_the_queues_named() -> None:
    """An item lost at put never reaches the handler; items of other Queues do."""
    made, rules, _ = faults("queue/events:lose-put,every=2")
    request = api_pb2.QueuePutRequest(queue_id="events", values=[b"a", b"b", b"c", b"d"])
    await made.admit("QueuePut", request, CLIENT)
    assert list(request.values) == [b"b", b"d"]
    other = api_pb2.QueuePutRequest(queue_id="results", values=[b"a", b"b"])
    await made.admit("QueuePut", other, CLIENT)
    assert list(other.values) == [b"a", b"b"]
    assert [rule.happened for rule in rules] == [2]


async def test_puts_are_late() -> None:
    """A put to a named Queue takes that much longer, and its items arrive; a put to another one does not."""
    made, rules, _ = faults("queue/events:delay-put=50ms,count=1")
    for queue, least in (("results", 0.0), ("events", 0.05)):
        request = api_pb2.QueuePutRequest(queue_id=queue, values=[b"a"])
        began = time.monotonic()
        await made.admit("QueuePut", request, CLIENT)
        assert time.monotonic() - began >= least
        assert list(request.values) == [b"a"]
    assert [(rule.seen, rule.happened) for rule in rules] == [(1, 1)]


async def test_items_are_doubled() -> None:
    """A doubled item is put twice in a row; those of other Queues are not."""
    made, rules, _ = faults("queue/events:double-put,every=2")
    request = api_pb2.QueuePutRequest(queue_id="events", values=[b"a", b"b", b"c"])
    await made.admit("QueuePut", request, CLIENT)
    assert list(request.values) == [b"a", b"a", b"b", b"c", b"c"]
    other = api_pb2.QueuePutRequest(queue_id="results", values=[b"a"])
    await made.admit("QueuePut", other, CLIENT)
    assert list(other.values) == [b"a"]
    assert [rule.happened for rule in rules] == [2]


async def test_items_are_lost_on_their_way_to_the_taker() -> None:
    """What was taken is missing from the answer, and the answer that others may remember stays as it is."""
    made, _, _ = faults("queue:lose-get,count=1")
    answer = api_pb2.QueueGetResponse(values=[b"a", b"b"])
    sent = await made.release(None, api_pb2.QueueGetRequest(queue_id="events"), answer, None)  # type: ignore[arg-type]
    assert isinstance(sent, api_pb2.QueueGetResponse)
    assert list(sent.values) == [b"b"]
    assert list(answer.values) == [b"a", b"b"]


async def test_an_entry_expires_before_it_is_looked_up() -> None:
    """A claim, a get, a pop and a look find the entry gone; an unconditional update does not look."""
    made, rules, objects = faults("dict/claims:expire")
    await made.admit(
        "DictUpdate", api_pb2.DictUpdateRequest(dict_id="claims", updates=[api_pb2.DictEntry(key=b"k")]), CLIENT
    )
    assert objects.entries
    await made.admit("DictGet", api_pb2.DictGetRequest(dict_id="claims", key=b"k"), CLIENT)
    assert not objects.entries
    assert [rule.happened for rule in rules] == [1]
