"""Faults of RPCs: what the dispatcher asks before it carries a call out, and before it sends the answer.

Owns delays, statuses, lost replies, rates, and the items of Queues and entries of Dicts that get lost on the way. It
knows no service: what it needs of one it asks for by RPC.
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

from modalflow.emulator.calls.limits import Bucket
from modalflow.emulator.faults.kinds import Scope
from modalflow.emulator.faults.rules import Rule, Rules, Turn
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
_LOSSES = {"reset": "its stream is reset", "disconnect": "its connection is closed", "held": "nobody is told anything"}

#: RPCs that look for an entry of a Dict. Listing a Dict is none of them.
_DICT_LOOKUPS = ("DictGet", "DictContains", "DictPop", "DictUpdate")


@dataclass
class Fate:
    """What becomes of a call's answer."""

    rule: Rule
    turn: Turn
    status: Status | None = None
    loss: str = ""


class RpcFaults:
    """What the dispatcher asks about each call while ``is_active``."""

    def __init__(self, rules: Rules, handlers: Handlers, stoppage: Stoppage) -> None:
        self._rules, self._handlers, self._stoppage = rules, handlers, stoppage
        self._on_rpcs: tuple[Rule, ...] = ()
        self._on_queues: tuple[Rule, ...] = ()
        self._on_dicts: tuple[Rule, ...] = ()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._held: dict[asyncio.Future[None], Rule] = {}

    @property
    def is_active(self) -> bool:
        return bool(self._on_rpcs or self._on_queues or self._on_dicts or self._stoppage.is_active)

    def refresh(self) -> None:
        """The rules changed. What a rule that is gone still holds back is reset."""
        self._on_rpcs = self._rules.of(Scope.RPC)
        self._on_queues = self._rules.of(Scope.QUEUE)
        self._on_dicts = self._rules.of(Scope.DICT)
        for waiting, rule in self._held.items():
            if rule not in self._on_rpcs and not waiting.done():
                waiting.set_result(None)

    async def admit(self, name: str, request: Message, caller: Caller) -> Fate | None:
        """Let the call through to its handler, late or changed where a rule says so, or raise what it gets instead."""
        fate: Fate | None = None
        refusal: GRPCError | None = None
        late = 0.0
        # All rules draw before anything waits, whichever of them wins: so each one's numbers depend on no other.
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
            turn = rule.happens(name)
            if turn is None:
                continue
            if kind == "delay":
                seconds = spec.value.draw(turn.random)
                late += seconds
                rule.note(turn, f"{seconds * 1000:.1f} ms late")
            elif refusal is not None or fate is not None:
                continue
            elif kind == "lost-reply":
                fate = Fate(rule, turn, loss=spec.value)
            elif kind.endswith(_AFTER):
                fate = Fate(rule, turn, status=_STATUSES[kind.removesuffix(_AFTER)])
            else:
                refusal = _refusal(rule, turn, _STATUSES[kind])
        if late:
            await asyncio.sleep(late)
            await self._stoppage.passage()
        if refusal is not None:
            raise refusal
        if self._on_queues and isinstance(request, api_pb2.QueuePutRequest):
            kept = await self._kept("lose-put", request.queue_id, list(request.values))
            del request.values[:]
            request.values.extend(kept)
        if self._on_dicts and name in _DICT_LOOKUPS:
            await self._expire(name, request)
        return fate

    async def release(
        self, fate: Fate | None, request: Message, answer: Message | None, stream: Stream[Any, Any]
    ) -> Message | None:
        """Return the answer to send, None if none is to be; raise what the caller gets in its place.

        An ``answer`` of None stands for a failure that was about to be sent, or for the rest of a stream.
        """
        await self._stoppage.passage()
        if fate is not None:
            await self._lose(fate, stream)
            return None
        if self._on_queues and isinstance(answer, api_pb2.QueueGetResponse) and answer.values:
            assert isinstance(request, api_pb2.QueueGetRequest)
            return api_pb2.QueueGetResponse(values=await self._kept("lose-get", request.queue_id, list(answer.values)))
        return answer

    async def _lose(self, fate: Fate, stream: Stream[Any, Any]) -> None:
        if fate.status is not None:
            fate.rule.note(fate.turn, f"{fate.status.name} after the effect")
            raise GRPCError(fate.status, f"On purpose, after the effect: {fate.rule.spec.text}")
        fate.rule.note(fate.turn, f"the reply is lost: {_LOSSES[fate.loss]}")
        if fate.loss == "disconnect":
            # What grpclib has no word for: the end of the connection that the call came by.
            stream._stream.connection.close()
            return
        if fate.loss == "held":
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held[waiting] = fate.rule
            try:
                await waiting
            finally:
                del self._held[waiting]
        await stream.cancel()

    def _exceeded(self, rule: Rule, name: str) -> Turn | None:
        """Count a call by its time; return a turn if it comes too fast."""
        turn = rule.happens(name)
        bucket = self._buckets.get((rule.rule_id, name))
        if bucket is None:
            rate: float = rule.spec.value
            bucket = Bucket(rate, max(1.0, float(rule.spec.options.get("burst", rate))))
            self._buckets[rule.rule_id, name] = bucket
        return None if bucket.take() else turn

    async def _kept(self, kind: str, queue_id: str, values: list[bytes]) -> list[bytes]:
        rules = [rule for rule in self._on_queues if rule.spec.kind.name == kind]
        if not rules:
            return values
        name = await self._name("QueueGetById", api_pb2.QueueGetByIdRequest(queue_id=queue_id))
        kept = []
        for value in values:
            turns = [(rule, rule.happens(name)) for rule in rules if rule.spec.concerns(name)]
            lost = [(rule, turn) for rule, turn in turns if turn is not None]
            for rule, turn in lost:
                rule.note(turn, f"an item of {len(value)} bytes is lost")
            if not lost:
                kept.append(value)
        return kept

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
                turn = rule.happens(of)
                if turn is None:
                    continue
                with contextlib.suppress(GRPCError):
                    popped = await self._handlers.carry_out(
                        "DictPop", api_pb2.DictPopRequest(dict_id=request.dict_id, key=key)
                    )
                    rule.note(turn, "an entry has expired" if popped.found else "there was no entry to expire")

    async def _name(self, rpc: str, request: Message) -> str:
        """The name of a Queue or Dict, empty for one that has none or is not there: an id is new each time."""
        try:
            found = await self._handlers.carry_out(rpc, request)
        except GRPCError:
            return ""
        return str(found.metadata.name)


def _is_for(wanted: str | None, caller: Caller) -> bool:
    return wanted is None or (wanted == "containers") == (caller.container_id is not None)


def _refusal(rule: Rule, turn: Turn, status: Status) -> GRPCError:
    rule.note(turn, status.name)
    retry_after = rule.spec.options.get("retry-after")
    # The SDK waits as told by this detail and tries again without counting (`_utils/grpc_utils.py`).
    details = None if retry_after is None else [api_pb2.RPCRetryPolicy(retry_after_secs=retry_after)]
    return GRPCError(status, f"On purpose: {rule.spec.text}", details)
