"""Faults of RPCs: the dispatcher consults them before it carries out a call, and before it sends the answer.

Owns delays, statuses, lost replies, rates, lost, late and doubled items of Queues, and lost entries of Dicts. It knows
no service: it calls the handlers of RPCs.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.server import Stream
from modal_proto import api_pb2

from modalflow.emulator.calls.token_bucket import TokenBucket
from modalflow.emulator.faults.rules import Occurrence, Rule, Rules
from modalflow.emulator.faults.spec.kinds import Scope
from modalflow.emulator.faults.stoppage import Stoppage
from modalflow.emulator.rpc.handlers import Handlers
from modalflow.emulator.rpc.service import Caller

_STATUSES: dict[str, Status] = {
    "unavailable": Status.UNAVAILABLE,
    "internal": Status.INTERNAL,
    "unknown": Status.UNKNOWN,
    "cancelled": Status.CANCELLED,
    "deadline-exceeded": Status.DEADLINE_EXCEEDED,
    "resource-exhausted": Status.RESOURCE_EXHAUSTED,
    "unauthenticated": Status.UNAUTHENTICATED,
}
_AFTER = "-after"
_LOSSES = {"reset": "its stream is reset", "disconnect": "its connection is closed", "held": "it never comes"}

#: RPCs that look up an entry of a Dict. Listing a Dict is not among them.
_DICT_LOOKUPS = ("DictGet", "DictContains", "DictPop", "DictUpdate")


@dataclass
class AnswerFault:
    """The fault that an answer gets."""

    rule: Rule
    occurrence: Occurrence
    status: Status | None = None
    loss: str = ""


class RpcFaults:
    """What the dispatcher asks about each call while ``is_active``."""

    def __init__(self, rules: Rules, handlers: Handlers, stoppage: Stoppage) -> None:
        self._rules, self._handlers, self._stoppage = rules, handlers, stoppage
        self._on_rpcs: tuple[Rule, ...] = ()
        self._on_queues: tuple[Rule, ...] = ()
        self._on_dicts: tuple[Rule, ...] = ()
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        self._held: dict[asyncio.Future[None], Rule] = {}

    @property
    def is_active(self) -> bool:
        return bool(self._on_rpcs or self._on_queues or self._on_dicts or self._stoppage.is_active)

    def refresh(self) -> None:
        """Follow the rules after a change. Streams that a removed rule holds back are reset."""
        self._on_rpcs = self._rules.of(Scope.RPC)
        self._on_queues = self._rules.of(Scope.QUEUE)
        self._on_dicts = self._rules.of(Scope.DICT)
        for waiting, rule in self._held.items():
            if rule not in self._on_rpcs and not waiting.done():
                waiting.set_result(None)

    async def admit(self, name: str, request: Message, caller: Caller) -> AnswerFault | None:
        """Pass the call to its handler, late or changed if a rule says so, or raise an error instead."""
        fault: AnswerFault | None = None
        refusal: GRPCError | None = None
        late = 0.0
        # All rules draw before anything waits, so that the numbers of each rule depend on no other rule.
        for rule in self._on_rpcs:
            spec = rule.spec
            if not spec.concerns(name) or not _is_for(spec.options.get("for"), caller):
                continue
            kind = spec.kind.name
            if kind == "rate":
                exceeded = self._exceeded(rule, name)
                if exceeded is not None and refusal is None:
                    refusal = _refusal(rule, exceeded, Status.RESOURCE_EXHAUSTED)
                continue
            occurrence = rule.draw(name)
            if occurrence is None:
                continue
            if kind == "delay":
                seconds = spec.value.draw(occurrence.random)
                late += seconds
                rule.record(occurrence, f"{seconds * 1000:.1f} ms late")
            elif refusal is not None or fault is not None:
                continue
            elif kind == "lost-reply":
                fault = AnswerFault(rule, occurrence, loss=spec.value)
            elif kind.endswith(_AFTER):
                fault = AnswerFault(rule, occurrence, status=_STATUSES[kind.removesuffix(_AFTER)])
            else:
                refusal = _refusal(rule, occurrence, _STATUSES[kind])
        if late:
            await asyncio.sleep(late)
            await self._stoppage.passage()
        if refusal is not None:
            raise refusal
        if self._on_queues and isinstance(request, api_pb2.QueuePutRequest):
            await self._delay_put(request.queue_id)
            kept = await self._kept("lose-put", request.queue_id, list(request.values))
            put = await self._with_copies(request.queue_id, kept)
            del request.values[:]
            request.values.extend(put)
        if self._on_dicts and name in _DICT_LOOKUPS:
            await self._expire(name, request)
        return fault

    async def release(
        self, fault: AnswerFault | None, request: Message, answer: Message | None, stream: Stream[Any, Any]
    ) -> Message | None:
        """Return the answer to send, None for none; raise the error that the caller gets instead.

        If ``answer`` is None, a failure or the rest of a stream was about to be sent.
        """
        await self._stoppage.passage()
        if fault is not None:
            await self._lose(fault, stream)
            return None
        if self._on_queues and isinstance(answer, api_pb2.QueueGetResponse) and answer.values:
            assert isinstance(request, api_pb2.QueueGetRequest)
            return api_pb2.QueueGetResponse(values=await self._kept("lose-get", request.queue_id, list(answer.values)))
        return answer

    async def _lose(self, fault: AnswerFault, stream: Stream[Any, Any]) -> None:
        if fault.status is not None:
            fault.rule.record(fault.occurrence, f"{fault.status.name} after the effect")
            raise GRPCError(fault.status, f"On purpose, after the effect: {fault.rule.spec.text}")
        fault.rule.record(fault.occurrence, f"the reply is lost: {_LOSSES[fault.loss]}")
        if fault.loss == "disconnect":
            # grpclib has no public name for the connection of a call.
            stream._stream.connection.close()
            return
        if fault.loss == "held":
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held[waiting] = fault.rule
            try:
                await waiting
            finally:
                del self._held[waiting]
        await stream.cancel()

    def _exceeded(self, rule: Rule, name: str) -> Occurrence | None:
        """Count a call by its time; return a occurrence if it comes too fast."""
        occurrence = rule.draw(name)
        bucket = self._buckets.get((rule.rule_id, name))
        if bucket is None:
            rate: float = rule.spec.value
            bucket = TokenBucket(rate, max(1.0, float(rule.spec.options.get("burst", rate))))
            self._buckets[rule.rule_id, name] = bucket
        return None if bucket.take() else occurrence

    async def _delay_put(self, queue_id: str) -> None:
        rules, name = await self._of_queue("delay-put", queue_id)
        late = 0.0
        for rule in rules:
            occurrence = rule.draw(name)
            if occurrence is not None:
                seconds = rule.spec.value.draw(occurrence.random)
                late += seconds
                rule.record(occurrence, f"a put is {seconds * 1000:.1f} ms late")
        if late:
            await asyncio.sleep(late)
            await self._stoppage.passage()

    async def _kept(self, kind: str, queue_id: str, values: list[bytes]) -> list[bytes]:
        rules, name = await self._of_queue(kind, queue_id)
        return [value for value in values if not _hit(rules, name, f"an item of {len(value)} bytes is lost")]

    async def _with_copies(self, queue_id: str, values: list[bytes]) -> list[bytes]:
        rules, name = await self._of_queue("double-put", queue_id)
        return [
            each
            for value in values
            for each in [value] * (1 + _hit(rules, name, f"an item of {len(value)} bytes is doubled"))
        ]

    async def _of_queue(self, kind: str, queue_id: str) -> tuple[list[Rule], str]:
        """Return the rules of a kind for a Queue, and its name."""
        rules = [rule for rule in self._on_queues if rule.spec.kind.name == kind]
        if not rules:
            return [], ""
        name = await self._name("QueueGetById", api_pb2.QueueGetByIdRequest(queue_id=queue_id))
        return [rule for rule in rules if rule.spec.concerns(name)], name

    async def _expire(self, name: str, request: Any) -> None:
        if name == "DictUpdate":
            if not request.if_not_exists:
                return
            keys = [entry.key for entry in request.updates]
        else:
            keys = [request.key]
        of = await self._name("DictGetById", api_pb2.DictGetByIdRequest(dict_id=request.dict_id))
        for rule in self._on_dicts:
            if not rule.spec.concerns(of):
                continue
            for key in keys:
                occurrence = rule.draw(of)
                if occurrence is None:
                    continue
                with contextlib.suppress(GRPCError):
                    popped = await self._handlers.carry_out(
                        "DictPop", api_pb2.DictPopRequest(dict_id=request.dict_id, key=key)
                    )
                    rule.record(occurrence, "an entry has expired" if popped.found else "there was no entry to expire")

    async def _name(self, rpc: str, request: Message) -> str:
        """Return the name of a Queue or Dict; empty for an ephemeral or unknown one, whose id is new each time."""
        try:
            found = await self._handlers.carry_out(rpc, request)
        except GRPCError:
            return ""
        return str(found.metadata.name)


def _hit(rules: list[Rule], name: str, what: str) -> bool:
    """Have each rule draw for one item, and record what happens to it; return whether any concerns it."""
    occurrences = [(rule, rule.draw(name)) for rule in rules]
    for rule, occurrence in occurrences:
        if occurrence is not None:
            rule.record(occurrence, what)
    return any(occurrence is not None for _, occurrence in occurrences)


def _is_for(wanted: str | None, caller: Caller) -> bool:
    return wanted is None or (wanted == "containers") == (caller.container_id is not None)


def _refusal(rule: Rule, occurrence: Occurrence, status: Status) -> GRPCError:
    rule.record(occurrence, status.name)
    retry_after = rule.spec.options.get("retry-after")
    # With this detail the SDK waits as long as it says, and retries without counting (`_utils/grpc_utils.py`).
    details = None if retry_after is None else [api_pb2.RPCRetryPolicy(retry_after_secs=retry_after)]
    return GRPCError(status, f"On purpose: {rule.spec.text}", details)
