"""How an RPC of Modal's control plane reaches the service that answers it.

Owns dispatch, authentication, deduplication by idempotency key and the translation of failures into gRPC statuses. It
knows no RPC by name: a service is any object whose methods carry the names of Modal's RPCs, and every RPC that no
service answers is UNIMPLEMENTED (the SDK then raises instead of believing a pretence).
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.server import Stream
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

from modalflow.emulator.rpc.answers import Answerer, Answers
from modalflow.emulator.rpc.container_sockets import Doors
from modalflow.emulator.rpc.failures import surfaced
from modalflow.emulator.rpc.full_disk import lookup, needs_room, refused
from modalflow.emulator.rpc.repeats import DELIVERIES, is_change
from modalflow.emulator.rpc.unimplemented import refusal
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.journal import Journal, StateError

log = logging.getLogger(__name__)

#: Answers kept for containers that repeat a call; each has a few calls under way at a time.
ANSWERS_TO_CONTAINERS = 2_000


@dataclass(frozen=True)
class Caller:
    """Who sent an RPC, as its metadata tells."""

    container_id: str | None
    """The container that called, None for a client with a token."""
    client_version: str
    idempotency_key: str | None


class Service:
    """A group of RPC handlers: public methods named like the RPC.

    A unary handler is ``async def Name(self, request, caller) -> Response``; a streaming one is an async generator with
    the same parameters. A failure is a ``grpclib.GRPCError`` with the status that Modal documents.
    What a repeated call gets, repeats.py says: every new RPC belongs into one of its lists.
    """

    inferred: ClassVar[Mapping[str, str]] = {}
    """RPC → what of its behaviour neither the SDK's source nor Modal's documentation tells; coverage.py lists it."""


class Credentials:
    """Which callers are let in: clients by token, containers by the door that they come through."""

    def __init__(self, token_id: str, token_secret: str, doors: Doors) -> None:
        self.token_id = token_id
        self.token_secret = token_secret
        self._doors = doors

    def __repr__(self) -> str:
        return f"Credentials(token_id={self.token_id!r})"

    def check(self, metadata: Mapping[str, Any], door: str | None) -> str | None:
        """Return the id of the calling container, None for a client; raise UNAUTHENTICATED for anyone else.

        ``door`` is the path of the unix socket that the call came through, None if it came over the network. A token
        that is sent through a door is a client's all the same: user code may be one (``Client.from_credentials``).
        """
        if door is not None and "x-modal-token-id" not in metadata:
            container_id = self._doors.behind(door)
            if container_id is None:
                raise GRPCError(Status.UNAUTHENTICATED, "This container has ended")
            return container_id
        if _same(metadata.get("x-modal-token-id"), self.token_id) and _same(
            metadata.get("x-modal-token-secret"), self.token_secret
        ):
            return None
        raise GRPCError(Status.UNAUTHENTICATED, "Token missing or invalid")


def _same(given: Any, expected: str) -> bool:
    return hmac.compare_digest(str(given or "").encode(), expected.encode())


class RpcStatusDetails(StatusDetailsCodecBase):
    """Encodes error details as the SDK decodes them (``modal.client.RPCStatus``)."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        encoded = api_pb2.RPCStatus(code=status.value, message=message or "")
        for detail in details or ():
            encoded.details.add().Pack(detail, type_url_prefix="type.modal.com/")
        return encoded.SerializeToString()

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        raise NotImplementedError("the control plane sends statuses, it reads none")


class Meddler(Protocol):
    """What stands between callers and handlers while faults are wanted; faults/rpcs.py has it."""

    async def passage(self) -> None: ...

    async def admit(self, name: str, request: Message, caller: Caller) -> Any: ...

    async def release(
        self, fate: Any, request: Message, answer: Message | None, stream: Stream[Any, Any]
    ) -> Message | None: ...


class Dispatcher:
    """The object that grpclib serves: Modal's RPC table with this process's services behind it."""

    faults: Meddler | None = None
    """Asked about every call while it is there; None costs nothing."""

    def __init__(self, services: Iterable[Service], credentials: Credentials, journal: Journal | None = None) -> None:
        """What a handler changed is in the journal before its answer is sent."""
        self._credentials = credentials
        self._journal = journal or Journal()
        types = {path.rpartition("/")[2]: declared.reply_type for path, declared in _declared_handlers().items()}
        self._answers = Answers(journal=self._journal, types=types)
        # Not on disk: containers end with the control plane. Apart, because they are many.
        self._answers_to_containers = Answers(ANSWERS_TO_CONTAINERS)
        self._methods: dict[str, Callable[..., Any]] = {}
        self.services = tuple(services)
        known = rpc_table()
        for service in self.services:
            for name, method in inspect.getmembers(service, callable):
                if name in known:
                    if name in self._methods:
                        raise ValueError(f"two services answer {name}")
                    self._methods[name] = method

    async def carry_out(self, name: str, request: Message) -> Any:
        """Answer an RPC of the control plane's own, as if a client had sent it."""
        return await self._methods[name](request, Caller(None, "", None))

    @property
    def implemented(self) -> frozenset[str]:
        """The names of the RPCs that some service answers."""
        return frozenset(self._methods)

    @property
    def inferred(self) -> dict[str, str]:
        """RPC → what was inferred about it, as the services declare."""
        return {name: said for service in self.services for name, said in service.inferred.items()}

    def __mapping__(self) -> dict[str, Handler]:
        return {
            handler_path: Handler(
                self._handler(handler_path.rpartition("/")[2]),
                declared.cardinality,
                declared.request_type,
                declared.reply_type,
            )
            for handler_path, declared in _declared_handlers().items()
        }

    def _handler(self, name: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def handle(stream: Stream[Any, Any]) -> None:
            with self._surfaced(name):
                await self._answer(name, stream)

        return handle

    @contextlib.contextmanager
    def _surfaced(self, name: str) -> Iterator[None]:
        """As ``failures.surfaced``; a disk that does not take something is an error with its own words."""
        with surfaced(name):
            try:
                yield
            except OSError as error:
                if not disk_space.unwritable(error):
                    raise
                log.error("%s failed: %s", name, error)
                raise refused(name, None, self._journal.words(error)) from error

    async def _answer(self, name: str, stream: Stream[Any, Any]) -> None:
        if self.faults is not None:
            await self.faults.passage()
        metadata: Mapping[str, Any] = stream.metadata or {}
        container_id = self._credentials.check(metadata, _door(stream))
        if name not in self._methods:
            raise GRPCError(Status.UNIMPLEMENTED, refusal(name))
        method = self._methods[name]
        caller = Caller(
            container_id=container_id,
            client_version=str(metadata.get("x-modal-client-version", "")),
            idempotency_key=_text(metadata.get("x-idempotency-key")),
        )
        request: Any = await stream.recv_message()
        request, words = self._fitting(name, request)
        fate = None if self.faults is None else await self.faults.admit(name, request, caller)
        if rpc_table()[name] in (Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM):
            answers: AsyncGenerator[Message] = method(request, caller)
            # Closed at once if the caller hangs up: a handler's own end is not left to the garbage collector.
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    await self._settled(name, request)
                    await stream.send_message(answer)
                    if self.faults is not None and fate is not None:
                        await self.faults.release(fate, request, None, stream)
                        return
            return

        async def handled() -> Message:
            # Here as well: it may run in a task of its own, and some exceptions end the event loop if one ends a task.
            with self._surfaced(name):
                made: Message = await method(request, caller)
                return made

        try:
            answer = await self._answered(name, handled, request, caller)
        except GRPCError as error:
            if self.faults is not None:
                await self.faults.release(fate, request, None, stream)
            if words and error.status is Status.NOT_FOUND:
                raise refused(name, request, words) from error
            raise
        await self._settled(name, request)
        if self.faults is not None:
            changed = await self.faults.release(fate, request, answer, stream)
            if changed is None:
                return
            answer = changed
        await stream.send_message(answer)

    def _fitting(self, name: str, request: Message) -> tuple[Message, str]:
        """Return what to carry out, and why it is less than what was asked for.

        What needs room that the disk does not have is refused before it has changed anything. Only an object that
        would be made if there were none is looked up all the same.
        """
        if not needs_room(name, request):
            return request, ""
        words = self._journal.refusal(request.ByteSize())
        if words and (found := lookup(request)) is not None:
            return found, words
        if words:
            raise refused(name, request, words)
        return request, ""

    async def _settled(self, name: str, request: Message) -> None:
        """Wait until what was changed is on disk. What ends something, or reads, goes on while the disk is full."""
        try:
            await self._journal.settled()
        except StateError as error:
            # Of an object that was looked up, only this answer is not on disk.
            if needs_room(name, request) and lookup(request) is None:
                raise refused(name, request, str(error)) from error

    async def _answered(self, name: str, answer: Answerer, request: Any, caller: Caller) -> Message:
        if not caller.idempotency_key:
            return await answer()
        answers, key = self._answers, (name, caller.idempotency_key)
        if caller.container_id is not None:
            # No container gets an answer that was another one's.
            answers, key = self._answers_to_containers, (name, f"{caller.container_id} {caller.idempotency_key}")
        if is_change(name):
            return await answers.once(key, answer)
        if (is_delivery := DELIVERIES.get(name)) is not None:
            return await answers.delivered(key, answer, functools.partial(is_delivery, request))
        return await answer()


def _door(stream: Stream[Any, Any]) -> str | None:
    """The unix socket that the call came through, None for a network connection."""
    # grpclib's Peer has a method for the other end's name alone.
    transport: Any = stream.peer._transport
    name = transport.get_extra_info("sockname")
    return name if isinstance(name, str) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_HANDLERS: dict[str, Handler] = {}


def _declared_handlers() -> dict[str, Handler]:
    """Modal's own RPC table, read off the generated base class, so that it fits whichever SDK is installed."""
    if not _HANDLERS:
        concrete: Any = type("Declared", (ModalClientBase,), {n: None for n in ModalClientBase.__abstractmethods__})
        _HANDLERS.update(concrete().__mapping__())
    return _HANDLERS


@functools.cache
def rpc_table() -> dict[str, Cardinality]:
    """Every RPC of Modal's protocol in the installed SDK: name → cardinality."""
    return {path.rpartition("/")[2]: handler.cardinality for path, handler in _declared_handlers().items()}
