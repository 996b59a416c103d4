"""Objects by name and by id: creation modes, listings, ephemeral lifetimes, environments."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.registry import EPHEMERAL_LIFETIME, Registry, StoredObject
from tests.support import Clock

CREATE = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
EPHEMERAL = api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL
OVERWRITE = api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS
CALLER = Caller(container_id=None, client_version="", idempotency_key=None)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_700_000_000.123_456_789)


@pytest.fixture
def environments() -> Environments:
    return Environments(Journal())


@pytest.fixture
def gone() -> list[str]:
    return []


@pytest.fixture
def registry(environments: Environments, clock: Clock, gone: list[str]) -> Registry[StoredObject]:
    def forget(kept: StoredObject) -> None:
        gone.append(kept.object_id)

    return Registry("Thing", "th", StoredObject, environments, Journal(), clock=clock, on_delete=forget)


def test_pages_of_a_listing_lose_nothing(registry: Registry[StoredObject]) -> None:
    """Objects made in the same moment are all in the pages that the SDK asks for, each once, newest first."""
    names = [f"n{i}" for i in range(7)]
    for name in names:
        registry.get_or_create(name, "", CREATE)
    listed: list[str] = []
    before = 0.0
    while page := registry.listed("", api_pb2.ListPagination(max_objects=3, created_before=before)):
        listed += [kept.name for kept in page]
        # As the SDK's users see and give it: a datetime, which has microseconds and no more.
        before = datetime.fromtimestamp(page[-1].created_at, UTC).timestamp()
    assert listed == names[::-1]


def test_an_ephemeral_object_lives_by_its_heartbeats(
    registry: Registry[StoredObject], clock: Clock, gone: list[str]
) -> None:
    """A heartbeat keeps an ephemeral object; without one it is gone; a named one needs none."""
    kept, _ = registry.get_or_create("", "", EPHEMERAL)
    named, _ = registry.get_or_create("named", "", CREATE)
    for _ in range(3):
        clock.now += EPHEMERAL_LIFETIME - 1
        registry.heartbeat(kept.object_id)
    assert registry.get(kept.object_id) is kept
    clock.now += EPHEMERAL_LIFETIME + 1
    with pytest.raises(GRPCError) as lost:
        registry.get(kept.object_id)
    assert lost.value.status is Status.NOT_FOUND
    assert gone == [kept.object_id]
    assert registry.get(named.object_id) is named


def test_overwriting_keeps_the_id(registry: Registry[StoredObject]) -> None:
    """What refers to an object by its id still finds it after it was overwritten."""
    first, new = registry.get_or_create("n", "", OVERWRITE)
    again, new_again = registry.get_or_create("n", "", OVERWRITE)
    assert first is again and new and not new_again


def test_a_rename_frees_the_old_name_and_respects_others(registry: Registry[StoredObject]) -> None:
    """The old name is free, the new one finds the object, a name in use is refused."""
    kept, _ = registry.get_or_create("old", "", CREATE)
    registry.get_or_create("taken", "", CREATE)
    with pytest.raises(GRPCError) as refused:
        registry.rename(kept.object_id, "taken")
    assert refused.value.status is Status.ALREADY_EXISTS
    registry.rename(kept.object_id, "new")
    assert registry.get_or_create("new", "", CREATE) == (kept, False)
    assert registry.get_or_create("old", "", CREATE)[0] is not kept


def test_objects_follow_their_environment(
    registry: Registry[StoredObject], environments: Environments, gone: list[str]
) -> None:
    """A renamed environment keeps its objects, a deleted one takes them along, other environments notice nothing."""

    async def environment(name: str) -> None:
        await environments.EnvironmentCreate(api_pb2.EnvironmentCreateRequest(name=name), CALLER)

    async def rename(name: str, new: str) -> None:
        request = api_pb2.EnvironmentUpdateRequest(current_name=name)
        request.name.value = new
        await environments.EnvironmentUpdate(request, CALLER)

    async def delete(name: str) -> None:
        await environments.EnvironmentDelete(api_pb2.EnvironmentDeleteRequest(name=name), CALLER)

    asyncio.run(environment("one"))
    elsewhere, _ = registry.get_or_create("n", "", CREATE)
    named, _ = registry.get_or_create("n", "one", CREATE)
    asyncio.run(rename("one", "two"))
    assert registry.get_or_create("n", "two", CREATE) == (named, False)
    asyncio.run(delete("two"))
    assert gone == [named.object_id]
    assert registry.get(elsewhere.object_id) is elsewhere
