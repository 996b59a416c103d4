"""The handlers of Modal's RPCs: what a service is, and what each handler declares about its RPC.

Owns the declaration, from which deduplication, refusals on a full disk and the page about RPCs are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from modalflow.emulator.rpc.idempotency import Change, Repeat

F = TypeVar("F", bound=Callable[..., Any])

_DECLARATION = "rpc_declaration"


@dataclass(frozen=True)
class Caller:
    """Who sent an RPC, according to its metadata."""

    container_id: str | None
    """The container that called, None for a client with a token."""
    client_version: str
    idempotency_key: str | None


class Service:
    """A group of RPC handlers: public methods with the names of RPCs, each declared with `rpc`.

    A unary handler is ``async def Name(self, request, caller) -> Response``; a streaming one is an async generator with
    the same parameters. A failure is a ``grpclib.GRPCError`` with the status that Modal documents.
    """


@dataclass(frozen=True)
class RpcDeclaration:
    """What a handler declares about its RPC."""

    repeat: Repeat
    inferred: str = ""
    room: bool | Callable[[Any], bool] = False
    retried_forever: bool = False

    def needs_room(self, request: Any) -> bool:
        """Return whether the call is refused if what it changes does not fit on the disk."""
        return self.room(request) if callable(self.room) else self.room


def rpc(
    *,
    repeat: Repeat,
    inferred: str = "",
    needs_room: bool | Callable[[Any], bool] | None = None,
    retried_forever: bool = False,
) -> Callable[[F], F]:
    """Declare a handler.

    ``repeat`` is what a repeated call gets. ``inferred`` is the part of the RPC's behaviour that neither the SDK's
    source nor Modal's documentation shows. ``needs_room`` is whether the call, or one with that request, is refused if
    the disk is full: a change is, unless it ends or frees something. ``retried_forever`` marks RPCs that the SDK
    repeats silently and without end if a resource is exhausted.
    """
    room = isinstance(repeat, Change) if needs_room is None else needs_room
    declaration = RpcDeclaration(repeat, inferred, room, retried_forever)

    def declare(handler: F) -> F:
        handler.__dict__[_DECLARATION] = declaration
        return handler

    return declare


def declaration_of(handler: Callable[..., Any]) -> RpcDeclaration | None:
    """Return what a handler declares, None without `rpc`."""
    found: RpcDeclaration | None = getattr(handler, _DECLARATION, None)
    return found
