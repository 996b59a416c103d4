"""The RPCs of the installed SDK, and the handlers of all services by the name of their RPC.

Owns both tables. What is known about an RPC stands on its handler, in the service.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler
from modal_proto.api_grpc import ModalClientBase

from modalflow.emulator.rpc.service import Caller, RpcDeclaration, Service, declaration_of


@functools.cache
def declared_handlers() -> dict[str, Handler]:
    """Return the generated handlers by their path, for their types and cardinality."""
    concrete: Any = type("Declared", (ModalClientBase,), {n: None for n in ModalClientBase.__abstractmethods__})
    return dict(concrete().__mapping__())


@functools.cache
def rpc_table() -> dict[str, Cardinality]:
    """Return the cardinality of every RPC of Modal's protocol by its name."""
    return {path.rpartition("/")[2]: handler.cardinality for path, handler in declared_handlers().items()}


@dataclass(frozen=True)
class RpcHandler:
    """One handler, bound to its service."""

    name: str
    method: Callable[..., Any]
    declaration: RpcDeclaration

    @property
    def is_stream(self) -> bool:
        """Whether it answers with a stream of messages."""
        return rpc_table()[self.name] in (Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM)


class Handlers:
    """All handlers. ValueError for two of one RPC, or one without a declaration."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._by_name: dict[str, RpcHandler] = {}
        known = rpc_table()
        for service in services:
            for name, method in inspect.getmembers(service, callable):
                if name in known:
                    self._add(name, method)

    def _add(self, name: str, method: Callable[..., Any]) -> None:
        declaration = declaration_of(method)
        if declaration is None:
            raise ValueError(f"the handler of {name} declares nothing about it; expected @rpc(repeat=…) above it")
        if name in self._by_name:
            raise ValueError(f"two services answer {name}")
        self._by_name[name] = RpcHandler(name, method, declaration)

    def find(self, name: str) -> RpcHandler | None:
        return self._by_name.get(name)

    @property
    def implemented(self) -> frozenset[str]:
        """The names of the RPCs that a service answers."""
        return frozenset(self._by_name)

    @property
    def inferred(self) -> dict[str, str]:
        """RPC → its inferred behaviour, for RPCs that declare any."""
        return {name: h.declaration.inferred for name, h in self._by_name.items() if h.declaration.inferred}

    async def carry_out(self, name: str, request: Message) -> Any:
        """Answer an RPC of the control plane itself, as if a client had sent it."""
        return await self._by_name[name].method(request, Caller(None, "", None))
