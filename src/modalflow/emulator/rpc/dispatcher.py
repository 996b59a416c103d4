"""How an RPC of Modal's control plane reaches the service that answers it.

Owns dispatch, deduplication by idempotency key and the translation of failures into gRPC statuses. It knows no RPC by
name: an RPC that no service answers is UNIMPLEMENTED, so that the SDK raises an error instead of trusting a pretence.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.const import Handler
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.server import Stream
from modal_proto import api_pb2

from modalflow.emulator.faults.stoppage import Stoppage
from modalflow.emulator.rpc.credentials import Credentials
from modalflow.emulator.rpc.failures import surfaced
from modalflow.emulator.rpc.full_disk import lookup, refused
from modalflow.emulator.rpc.handlers import Handlers, RpcHandler, declared_handlers
from modalflow.emulator.rpc.idempotency import Anew, Change, Delivery, Read, RememberedAnswers
from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.rpc.unimplemented import refusal
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.journal import Journal, StateError

log = logging.getLogger(__name__)

#: Answers kept for containers that repeat a call; each has a few calls under way at a time.
ANSWERS_TO_CONTAINERS = 2_000


class RpcStatusDetails(StatusDetailsCodecBase):
    """Encodes error details in the form that the SDK decodes (``modal.client.RPCStatus``)."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        encoded = api_pb2.RPCStatus(code=status.value, message=message or "")
        for detail in details or ():
            encoded.details.add().Pack(detail, type_url_prefix="type.modal.com/")
        return encoded.SerializeToString()

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        raise NotImplementedError("the control plane sends statuses and reads none")


class CallFaults(Protocol):
    """Stands between callers and handlers while ``is_active``."""

    @property
    def is_active(self) -> bool: ...

    async def admit(self, name: str, request: Message, caller: Caller) -> Any:
        """Let a call through, late or changed, or raise what its caller gets; return what `release` needs."""
        ...

    async def release(
        self, fault: Any, request: Message, answer: Message | None, stream: Stream[Any, Any]
    ) -> Message | None:
        """Return the answer to send, None for none."""
        ...


class Dispatcher:
    """The object that grpclib serves: Modal's RPC table with the services of this process behind it."""

    def __init__(
        self, handlers: Handlers, credentials: Credentials, journal: Journal, faults: CallFaults, stoppage: Stoppage
    ) -> None:
        """Every change of a handler is in the journal before its answer is sent."""
        self._handlers, self._credentials, self._journal = handlers, credentials, journal
        self._faults, self._stoppage = faults, stoppage
        types = {path.rpartition("/")[2]: declared.reply_type for path, declared in declared_handlers().items()}
        self._answers = RememberedAnswers(journal=journal, types=types)
        # Not on disk: containers end with the control plane. Apart, because they are many.
        self._answers_to_containers = RememberedAnswers(ANSWERS_TO_CONTAINERS, journal=Journal())

    def __mapping__(self) -> dict[str, Handler]:
        return {
            path: Handler(
                self._entry_point(path.rpartition("/")[2]),
                declared.cardinality,
                declared.request_type,
                declared.reply_type,
            )
            for path, declared in declared_handlers().items()
        }

    def _entry_point(self, name: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def handle(stream: Stream[Any, Any]) -> None:
            with self._surfaced(name):
                await self._answer(name, stream)

        return handle

    @contextlib.contextmanager
    def _surfaced(self, name: str) -> Iterator[None]:
        """Turn exceptions into statuses, as ``failures.surfaced``; a full disk gets words of its own."""
        with surfaced(name):
            try:
                yield
            except OSError as error:
                if not disk_space.unwritable(error):
                    raise
                log.error("%s failed: %s", name, error)
                handler = self._handlers.find(name)
                retried_forever = handler is not None and handler.declaration.retried_forever
                raise refused(self._journal.error_text(error), None, retried_forever=retried_forever) from error

    async def _answer(self, name: str, stream: Stream[Any, Any]) -> None:
        if self._stoppage.is_active:
            await self._stoppage.passage()
        metadata: Mapping[str, Any] = stream.metadata or {}
        container_id = self._credentials.check(metadata, _socket_path(stream))
        handler = self._handlers.find(name)
        if handler is None:
            raise GRPCError(Status.UNIMPLEMENTED, refusal(name))
        caller = Caller(
            container_id=container_id,
            client_version=str(metadata.get("x-modal-client-version", "")),
            idempotency_key=_text(metadata.get("x-idempotency-key")),
        )
        sent: Any = await stream.recv_message()
        request, words = self._fitting(handler, sent)
        fault = await self._faults.admit(name, request, caller) if self._faults.is_active else None
        if handler.is_stream:
            await self._answer_stream(handler, request, caller, fault, stream)
        else:
            await self._answer_once(handler, request, caller, fault, stream, words)

    async def _answer_stream(
        self, handler: RpcHandler, request: Message, caller: Caller, fault: Any, stream: Stream[Any, Any]
    ) -> None:
        answers: AsyncGenerator[Message] = handler.method(request, caller)
        # Closed at once if the caller hangs up: the end of a handler is not left to the garbage collector.
        async with contextlib.aclosing(answers):
            async for answer in answers:
                await self._settled(handler, request)
                await stream.send_message(answer)
                if fault is not None and self._faults.is_active:
                    await self._faults.release(fault, request, None, stream)
                    return

    async def _answer_once(
        self, handler: RpcHandler, request: Message, caller: Caller, fault: Any, stream: Stream[Any, Any], words: str
    ) -> None:
        """Send one answer. ``words`` is the reason if the request was reduced to a lookup, otherwise empty."""
        try:
            answer = await self._answered(handler, request, caller)
        except GRPCError as error:
            if self._faults.is_active:
                await self._faults.release(fault, request, None, stream)
            if words and error.status is Status.NOT_FOUND:
                raise _refused(handler, request, words) from error
            raise
        await self._settled(handler, request)
        if self._faults.is_active:
            changed = await self._faults.release(fault, request, answer, stream)
            if changed is None:
                return
            answer = changed
        await stream.send_message(answer)

    def _fitting(self, handler: RpcHandler, request: Message) -> tuple[Message, str]:
        """Return what to carry out, and why it is less than what was sent.

        A call that needs more room than the disk has is refused before it has changed anything. Only a call that finds
        an object, or makes one, is carried out as a lookup.
        """
        if not handler.declaration.needs_room(request):
            return request, ""
        words = self._journal.refusal(request.ByteSize())
        if words and (found := lookup(request)) is not None:
            return found, words
        if words:
            raise _refused(handler, request, words)
        return request, ""

    async def _settled(self, handler: RpcHandler, request: Message) -> None:
        """Wait until every change is on disk. Calls that need no room go on while the disk is full."""
        try:
            await self._journal.settled()
        except StateError as error:
            # Of a lookup, only the answer is not on disk.
            if handler.declaration.needs_room(request) and lookup(request) is None:
                raise _refused(handler, request, str(error)) from error

    async def _answered(self, handler: RpcHandler, request: Message, caller: Caller) -> Message:
        async def handled() -> Message:
            # Here as well: it may run in a task of its own, and some exceptions end the event loop if one ends a task.
            with self._surfaced(handler.name):
                made: Message = await handler.method(request, caller)
                return made

        if not caller.idempotency_key:
            return await handled()
        answers, key = self._answers, (handler.name, caller.idempotency_key)
        if caller.container_id is not None:
            # No container gets the answer of another one.
            answers, key = self._answers_to_containers, (handler.name, f"{caller.container_id} {key[1]}")
        match handler.declaration.repeat:
            case Change():
                return await answers.once(key, handled)
            case Delivery(delivered):
                return await answers.delivered(key, handled, functools.partial(delivered, request))
            case Read() | Anew():
                return await handled()


def _refused(handler: RpcHandler, request: Message, words: str) -> GRPCError:
    return refused(words, request, retried_forever=handler.declaration.retried_forever)


def _socket_path(stream: Stream[Any, Any]) -> str | None:
    """Return the path of the unix socket that the call came through, None for a network connection."""
    # grpclib's Peer has a method for the name of the other end only.
    transport: Any = stream.peer._transport
    name = transport.get_extra_info("sockname")
    return name if isinstance(name, str) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
