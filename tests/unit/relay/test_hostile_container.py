"""The relay beside containers with a wrong clock, floods of requests, and messages that are none."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from modalflow.relay.container import relay_client
from modalflow.relay.encryption import KeyPair, Session, keys_of_session
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.keys import ACCEPTED_FOR, KeyRing, new_key
from modalflow.relay.messages import LARGEST, Answer, Direction, Header, Request, pack, place_of, unpack
from tests.unit.relay.conversation import conversation, detail, key_pair, until
from tests.unit.relay.memory_transport import MemoryTransport


@pytest.mark.parametrize("transport", ["queues", "tunnel"])
@pytest.mark.parametrize("difference", [-300.0, 300.0])
async def test_a_wrong_clock_costs_a_container_one_message(
    monkeypatch: pytest.MonkeyPatch, difference: float, transport: str
) -> None:
    """Its requests have the relay's time from then on, and no log says that there is no relay."""
    clock = SimpleNamespace(time=lambda: time.time() + difference, monotonic=time.monotonic)
    async with conversation(transport) as talk:
        await talk.add_relay()
        monkeypatch.setattr(relay_client, "time", clock)
        server = await talk.add_container(connected=False)
        began = time.monotonic()
        for number in range(3):
            async with talk.http.put(server.url + f"xcoms/{number}", data=b"x" * 1_000_000 * number) as response:
                assert response.status == 200
        assert time.monotonic() - began < relay_client.FIRST_RESEND
        assert len(talk.api.requests) == 3 and talk.relays[0].counts.late <= 2 and not talk.notes


@pytest.mark.parametrize("transport", ["queues", "tunnel"])
async def test_a_heartbeat_passes_while_all_other_requests_hang(transport: str) -> None:
    """The API server answers thousands of requests of other tasks late: Airflow must not miss a heartbeat."""
    async with conversation(transport) as talk:
        answers = asyncio.Event()

        async def hang(request: web.Request) -> web.Response:
            if not request.path.endswith("heartbeat"):
                await answers.wait()
            return web.Response(status=204)

        talk.api.handler = hang
        await talk.add_relay()
        servers = [await talk.add_container(f"ta-{number}") for number in range(4)]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

            async def ask(url: str) -> int:
                async with http.get(url) as response:
                    return response.status

            flood = [
                asyncio.create_task(ask(f"{server.url}variables/v{number}"))
                for server in servers[:3]
                for number in range(300)
            ]
            await until(lambda: len(talk.api.requests) >= 48)
            async with asyncio.timeout(5):
                for server in (servers[0], servers[3]):
                    async with http.put(server.url + "task-instances/1/heartbeat", data=b"{}") as response:
                        assert response.status == 204
            assert talk.relays[0].in_flight < 3 * (relay_client.MOST_SENT + 10)
            answers.set()
            assert set(await asyncio.gather(*flood)) == {204}


async def test_messages_that_are_none_are_a_few_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them has another text, which a container chooses."""
    async with conversation() as talk:
        await talk.add_relay()
        for number in range(500):
            talk.memory.queues["requests"].put_nowait(pack(json.dumps({"v": f"x{number}"}).encode(), b""))
        await until(lambda: talk.relays[0].counts.refused == 500)
        assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1


async def test_foreign_items_among_the_parts_of_a_request_are_dropped() -> None:
    """Whoever can write to the Modal Queue costs no other container its request."""
    async with conversation() as talk:
        session, memory = Session(talk.pair.public), talk.memory
        first = Header(
            Direction.REQUEST, talk.pair.id, session.name, "1", 1, time.time(), parts=2, public=session.public.hex()
        )
        part = session.keys.seal(dataclasses.replace(first, part=1), Request("GET", "health").to_bytes())
        items = [b"nonsense", pack(dataclasses.replace(first, part=1).to_bytes(), b"nonsense" * 9), part]
        await talk.add_relay()
        await memory.to_relays().send(session.keys.seal(first, b""), items, place=place_of(first))
        (item,) = await memory.to_relays().receive(session.name, 5)
        assert Answer.read(session.keys.open(Direction.ANSWER, *unpack(item))).status == 200


@pytest.mark.parametrize("host", ["a" * 70, "a\0b", "\ud800", "a..b"])
async def test_an_address_that_is_none_is_an_answer_and_no_traceback(host: str) -> None:
    """Names that the resolver refuses, and a port that does not exist."""
    pair = key_pair()
    session = Session(pair.public)
    tunnels = TunnelsToContainers("r", MemoryTransport().to_containers(), local=False)
    header = Header(Direction.REQUEST, pair.id, session.name, "1", 1, time.time())
    answer = await tunnels.connect(header, keys_of_session(pair, session.public), f"tls://{host}.modal.host:99999")
    assert answer.status == 502


async def test_bodies_that_are_too_large_or_malformed_are_named() -> None:
    """The limit and the way out of it; neither is an error that clients repeat."""
    async with conversation() as talk:
        server = await talk.add_container()
        async with talk.http.put(server.url + "xcoms/a", data=bytes(LARGEST + 1)) as response:
            assert response.status == 413 and "40 MiB" in detail(await response.read())
        headers = {"Content-Encoding": "gzip"}
        async with talk.http.put(server.url + "xcoms/a", data=b"nonsense", headers=headers) as response:
            assert response.status == 400 and "cannot be read" in detail(await response.read())


def test_a_relay_that_runs_for_long_stops_accepting_a_replaced_key() -> None:
    """The limit holds from its own clock on, not only when it reads its keys again."""
    now = datetime.now(UTC)
    made = [now - 2 * ACCEPTED_FOR, now - ACCEPTED_FOR - timedelta(hours=1), now - timedelta(hours=1)]
    oldest, middle, newest = (KeyPair(new_key(at)[0].rpartition("KEY_")[2], secrets.token_bytes(32)) for at in made)
    ring = KeyRing({pair.id: pair for pair in (oldest, middle, newest)})
    assert ring.accepted(newest.id) is newest and ring.accepted(middle.id) is middle
    assert ring.accepted(oldest.id) is None and ring.accepted("another") is None
