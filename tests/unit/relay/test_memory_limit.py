"""A relay beside many containers that read large answers at once: its memory has a limit, and none waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest
from aiohttp import web

from modalflow.errors import MalformedMessageError
from modalflow.relay.container import relay_client
from modalflow.relay.host import memory_limit, tunnels_to_containers
from modalflow.relay.host import relay as relay_module
from modalflow.relay.host.memory_limit import MemoryLimit, NoRoomError, cost
from modalflow.relay.host.parts import KeptParts
from modalflow.relay.messages import LARGEST, PART_SIZE
from tests.unit.relay.conversation import conversation, until
from tests.unit.relay.deaf_container import deaf_container

LARGE = 5_000_000


async def taken(limit: MemoryLimit, container: str, size: int) -> tuple[memory_limit.Share, asyncio.Task[None]]:
    """A share, and the task that waits for its room; it has had its turn."""
    share = limit.share(container)
    task = asyncio.create_task(share.take(size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return share, task


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers: each answer takes room, once."""
    monkeypatch.setattr(memory_limit, "FREE", 0)
    monkeypatch.setattr(memory_limit, "COPIES", 1)
    monkeypatch.setattr(memory_limit, "SENT_COPIES", 0)


@pytest.mark.usefixtures("free")
async def test_answers_get_room_in_turn_and_no_container_has_all_of_it() -> None:
    """The share of a container ends before the limit of all; a larger answer is not overtaken for ever."""
    limit = MemoryLimit(100, 60)
    first, _ = await taken(limit, "a", 50)
    _, own = await taken(limit, "a", 20)
    other, second = await taken(limit, "b", 50)
    assert second.done() and not own.done() and limit.taken == 100
    _, large = await taken(limit, "c", 80)
    _, small = await taken(limit, "d", 10)
    with other:
        pass
    # Behind a larger one.
    assert not small.done()
    with first:
        pass
    await asyncio.sleep(0)
    assert own.done() and large.done() and not small.done() and limit.taken == 100


@pytest.mark.usefixtures("free")
async def test_an_answer_larger_than_its_share_has_its_turn() -> None:
    """A container with no other answer may have it."""
    limit = MemoryLimit(100, 10)
    share, task = await taken(limit, "a", 200)
    assert task.done()
    share.shrink(5)
    assert limit.taken == 5
    with share:
        pass
    assert limit.taken == 0


@pytest.mark.usefixtures("free")
async def test_room_that_is_given_up_goes_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without room for long, or without a reader, holds up nothing."""
    monkeypatch.setattr(memory_limit, "PATIENCE", 0.05)
    limit = MemoryLimit(100, 100)
    share, _ = await taken(limit, "a", 60)
    _, waiting = await taken(limit, "b", 60)
    _, behind = await taken(limit, "c", 40)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert behind.done()
    with pytest.raises(NoRoomError, match="no room for a large answer"):
        await limit.take("d", 60)
    with share:
        pass
    assert limit.taken == 40


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of all answers in the relay, at each moment; it has room for three."""
    taken: list[int] = []

    class Watched(MemoryLimit):
        def __init__(self) -> None:
            super().__init__(3 * cost(LARGE), 2 * cost(LARGE))

        def _admit(self) -> None:
            super()._admit()
            taken.append(self.taken)

    monkeypatch.setattr(relay_module, "MemoryLimit", Watched)
    return taken


@pytest.mark.parametrize("transport", ["queues", "tunnel"])
async def test_many_large_answers_at_once_are_read_in_turn(transport: str, room: list[int]) -> None:
    """Each arrives whole; beyond the limit, the API server waits, and so does no heartbeat."""
    async with conversation(transport) as talk:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=204) if request.path.endswith("heartbeat") else web.Response(body=bytes(LARGE))

        talk.api.handler = answer
        await talk.add_relay()
        servers = [await talk.add_container(f"ta-{number}") for number in range(5)]

        async def read(url: str) -> int:
            async with talk.http.get(url) as response:
                return len(await response.read())

        async with asyncio.timeout(60):
            reading = [read(f"{each.url}xcoms/d/r/t/k{number}") for each in servers for number in range(3)]
            tasks = [asyncio.create_task(each) for each in reading]
            await until(lambda: bool(room) and max(room) > 0)
            async with talk.http.put(servers[0].url + "task-instances/1/heartbeat", data=b"{}") as response:
                assert response.status == 204
            assert await asyncio.gather(*tasks) == [LARGE] * 15
        assert 2 * cost(LARGE) <= max(room) <= 3 * cost(LARGE)
        await until(lambda: room[-1] == 0)
        assert {headers["Accept-Encoding"] for headers in talk.api.headers} == {"identity"}


async def test_an_answer_of_unknown_size_has_room_for_the_largest(room: list[int]) -> None:
    """It keeps what it needs once it is read."""
    async with conversation() as talk:

        async def stream(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(bytes(LARGE))
            return response

        talk.api.handler = stream
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.get(server.url + "xcoms/d/r/t/k") as response:
            assert len(await response.read()) == LARGE
        await until(lambda: room[-1] == 0)
        assert room[0] == cost(LARGEST) and cost(LARGE) in room


async def test_a_repeat_while_the_answer_is_on_its_way_gets_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, room: list[int]
) -> None:
    """A slow way for a large answer, and an impatient container: the answer is not sent once for each repeat."""
    monkeypatch.setattr(relay_client, "FIRST_RESEND", 0.05)
    monkeypatch.setattr(relay_client, "LONGEST_RESEND", 0.05)
    async with conversation() as talk:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=bytes(LARGE))

        talk.api.handler = answer
        await talk.add_relay()
        relay, server = talk.relays[0], await talk.add_container()
        send, large = relay._transport.send, 0

        async def slow(session: str, items: Iterable[bytes]) -> None:
            nonlocal large
            all_items = list(items)
            if len(all_items) > 1:
                large += 1
                await until(lambda: relay.counts.repeats >= 3)
            await send(session, all_items)

        monkeypatch.setattr(relay._transport, "send", slow)
        async with talk.http.get(server.url + "xcoms/d/r/t/k") as response:
            assert len(await response.read()) == LARGE
        assert large == 1 and len(talk.api.requests) == 1


async def test_a_container_that_does_not_read_a_large_answer_loses_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise it would keep the room of others."""
    monkeypatch.setattr(tunnels_to_containers, "_PART_TIMEOUT", 0.2)
    made = 0

    def items() -> Iterator[bytes]:
        nonlocal made
        for _ in range(40):
            made += 1
            yield bytes(PART_SIZE)

    async with deaf_container() as deaf:
        with pytest.raises(ConnectionError, match="does not read"):
            await deaf.tunnels.send(deaf.session, items())
    # Those that the kernel has taken, and one.
    assert made < 20


def test_parts_of_large_requests_have_a_limit_for_all_containers() -> None:
    """Beyond it, a container's connection ends: its request travels over the Modal Queue, where a relay fetches it."""
    kept = KeptParts(100)
    kept.add("a", bytes(60))
    with pytest.raises(MalformedMessageError, match="large requests"):
        kept.add("b", bytes(60))
    assert kept.pop("a") == [bytes(60)] and kept.pop("a") is None
    kept.add("b", bytes(60))
    assert kept.size_of("b") == 60 and kept.size_of("a") == 0
