"""Requests from a container's loopback server to the API server and back, over a transport in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import pytest
from aiohttp import web
from modal.exception import AuthError

from modalflow.demo.programs.ports import free_port
from modalflow.relay.container import relay_client, tunnel_to_relays
from modalflow.relay.container.loopback_server import LoopbackServer
from modalflow.relay.encryption import Session
from modalflow.relay.host import relay as relay_module
from modalflow.relay.messages import Answer, Direction, Header, Request, place_of, unpack
from tests.unit.relay.conversation import conversation, detail, key_pair, until

STATE = "task-instances/0198/state"


@pytest.fixture(params=["queues", "tunnel"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport: the promises of a relay are the same over both."""
    return str(request.param)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send again after a short time, as after a long one."""
    monkeypatch.setattr(relay_client, "FIRST_RESEND", 0.2)
    monkeypatch.setattr(relay_client, "LONGEST_RESEND", 0.4)
    monkeypatch.setattr(relay_module, "NOTICE", 0.05)


async def test_a_request_reaches_the_api_server_and_its_answer_comes_back(transport: str) -> None:
    """Method, path, query, body and the API's headers arrive as they were sent; headers of the way do not."""
    async with conversation(transport) as talk:
        await talk.add_relay("r1")
        server = await talk.add_container()
        async with talk.http.put(
            server.url + "xcoms/d/r%2F1/t/key%2Fa?map_index=-1",
            data=b'{"a": 1}',
            headers={"Authorization": "Bearer t", "airflow-api-version": "2026-01-01", "Cookie": "x=y"},
        ) as response:
            assert response.status == 200
            assert response.headers["Refreshed-API-Token"] == "next" and "set-cookie" not in response.headers
            assert response.headers["x-modalflow-relay"] == "r1"
            assert await response.json() == {"method": "PUT"}
        assert talk.api.requests == [("PUT", "/base/execution/xcoms/d/r%2F1/t/key%2Fa?map_index=-1", b'{"a": 1}')]
        (headers,) = talk.api.headers
        assert headers["Authorization"] == "Bearer t" and headers["airflow-api-version"] == "2026-01-01"
        assert "Cookie" not in headers


async def test_nothing_readable_passes_the_transport() -> None:
    """Neither token nor content is readable on the way."""
    async with conversation() as talk:
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.get(server.url + "variables/pin", headers={"Authorization": "Bearer secret-token"}) as got:
            await got.read()
        for item in (*talk.memory.requests, *talk.memory.answers):
            assert b"secret-token" not in item and b"variables" not in item and b"GET" not in item


@pytest.mark.parametrize("size", [1_000_000, 5_000_000])
async def test_large_bodies_pass_both_ways(size: int, transport: str) -> None:
    """A body of several items arrives whole, and so does such an answer."""
    async with conversation(transport) as talk:

        async def echo(request: web.Request) -> web.Response:
            return web.Response(body=await request.read())

        talk.api.handler = echo
        for _ in range(2):
            await talk.add_relay()
        server = await talk.add_container()
        body = bytes(range(256)) * (size // 256)
        async with talk.http.post(server.url + "xcoms/d/r/t/key", data=body) as response:
            assert await response.read() == body


async def test_a_lost_message_is_sent_again() -> None:
    """A lost request and a lost answer cost time only, and the request is carried out once."""
    async with conversation() as talk:
        lost: list[bytes] = []

        def lose_first(item: bytes) -> list[bytes]:
            lost.append(item)
            return [] if len(lost) in (1, 2) else [item]

        talk.memory.fate_of_request = talk.memory.fate_of_answer = lose_first
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.patch(server.url + STATE, data=b'{"state": "success"}') as response:
            assert response.status == 200
        assert len(talk.api.requests) == 1 and len(lost) > 2


async def test_a_doubled_message_is_carried_out_once() -> None:
    """A copy of a message is refused, by the relay that has had it."""
    async with conversation() as talk:
        talk.memory.fate_of_request = lambda item: [item, item, item]
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.patch(server.url + STATE, data=b"{}") as response:
            assert response.status == 200
        await asyncio.sleep(0.1)
        assert len(talk.api.requests) == 1
        assert talk.relays[0].counts.replays == 2


async def test_another_relay_takes_up_what_a_dead_one_had_taken(transport: str) -> None:
    """A killed relay fails nothing; a state that it had reported already is success."""
    async with conversation(transport) as talk:
        reached = asyncio.Event()

        async def slow_then_conflict(request: web.Request) -> web.Response:
            if len(talk.api.requests) == 1:
                reached.set()
                await asyncio.sleep(30)
            what = {"detail": {"reason": "invalid_state", "previous_state": "success"}}
            return web.json_response(what, status=409)

        talk.api.handler = slow_then_conflict
        first = await talk.add_relay()
        server = await talk.add_container()
        asked = asyncio.create_task(
            talk.http.patch(server.url + STATE, data=json.dumps({"state": "success"})).__aenter__()
        )
        await reached.wait()
        first.cancel()
        await talk.add_relay()
        response = await asked
        assert response.status == 204
        assert len(talk.api.requests) == 2


async def test_the_repeat_of_a_client_that_gave_up_gets_the_first_answer(transport: str) -> None:
    """A client's own retry is not a second change of state."""
    async with conversation(transport) as talk:
        go_on = asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            await go_on.wait()
            return web.Response(status=204)

        talk.api.handler = slow
        await talk.add_relay()
        server = await talk.add_container()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await talk.http.patch(server.url + STATE, data=b'{"state": "success"}')
        again = asyncio.create_task(talk.http.patch(server.url + STATE, data=b'{"state": "success"}').__aenter__())
        await asyncio.sleep(0.1)
        go_on.set()
        assert (await again).status == 204
        assert len(talk.api.requests) == 1


@pytest.mark.parametrize("waited", [False, True])
async def test_a_relay_that_stood_still_carries_out_no_old_request(
    monkeypatch: pytest.MonkeyPatch, waited: bool, transport: str
) -> None:
    """The container has sent it to another relay by then, and the task may have gone on; here it comes again."""
    monkeypatch.setattr(relay_module, "CONCURRENCY", 1)
    async with conversation(transport) as talk:
        answers = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            await answers.wait()
            return web.Response(status=204)

        talk.api.handler = answer
        await talk.add_relay()
        relay, server = talk.relays[0], await talk.add_container()
        await until(lambda: bool(relay.key_id))

        async def ask(name: str) -> int:
            async with talk.http.get(server.url + f"variables/{name}") as response:
                return response.status

        first = asyncio.create_task(ask("first"))
        await until(lambda: bool(talk.api.requests))
        later = [asyncio.create_task(ask("waits"))] if waited else []
        await until(lambda: relay.in_flight == 1 + len(later))
        late, requests = relay.counts.late, relay.counts.requests
        relay._standstill._asked_at -= 60.0
        if not waited:
            session = Session(talk.pair.public)
            now, public = time.time() - 10.0, session.public.hex()
            header = Header(Direction.REQUEST, talk.pair.id, session.name, "1", 1, now, public=public)
            await talk.memory.to_relays().send(session.keys.seal(header, Request("GET", "variables/late").to_bytes()))
            await until(lambda: relay.counts.late == late + 1)
        answers.set()
        assert await asyncio.gather(first, *later) == [204] * (1 + len(later))
        assert len(talk.api.requests) == 1 + len(later) and relay.counts.requests - requests == len(later)


async def test_a_slow_api_server_is_not_asked_again(transport: str) -> None:
    """As long as a relay reports that it waits for the API server, the request is not sent again."""
    async with conversation(transport) as talk:

        async def slow(request: web.Request) -> web.Response:
            await asyncio.sleep(1.0)
            return web.Response(status=204)

        talk.api.handler = slow
        for _ in range(2):
            await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.patch(server.url + STATE, data=b"{}") as response:
            assert response.status == 204
        assert not sum(relay.counts.repeats for relay in talk.relays)
        assert sum(relay.counts.requests for relay in talk.relays) == 1 + len(talk.tunnels)


async def test_without_a_relay_the_log_says_so(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """The wait for a relay is a line in the task's log, and so is its end."""
    monkeypatch.setattr(relay_client, "NOTED_AFTER", 0.3)
    async with conversation(transport) as talk:
        server = await talk.add_container()
        asked = asyncio.create_task(talk.http.get(server.url + "health").__aenter__())
        await asyncio.sleep(1.0)
        assert talk.notes and talk.notes[0].startswith("No relay has answered for ")
        await talk.add_relay("late")
        assert (await asked).status == 200
        assert talk.notes[-1].startswith("Relay late has answered after ")


async def test_a_key_that_a_relay_does_not_have_is_refused(transport: str) -> None:
    """A container with another key gets no answer, and nothing reaches the API server."""
    async with conversation(transport) as talk:
        await talk.add_relay()
        server = await talk.add_container(pair=key_pair())
        stranger = await talk.add_container(pair=key_pair("20250101T000000_bb"))
        for url in (server.url, stranger.url):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await talk.http.get(url + "health")
        assert not talk.api.requests
        assert talk.relays[0].counts.refused and talk.relays[0].counts.unknown_keys


@pytest.mark.parametrize(
    "method, target",
    [
        ("GET", "../api/v2/dags"),
        ("GET", "%2e%2e/api/v2/dags"),
        ("GET", "variables/..%2f..%2fapi"),
        ("GET", "variables/%252e%252e/x"),
        ("GET", "variables/a%5c..%5cb"),
        ("GET", "api/v2/dags"),
        ("POST", "variables/x"),
        ("DELETE", "connections/x"),
        ("OPTIONS", "variables/x"),
        ("GET", "//evil.example/execution/health"),
    ],
)
async def test_only_the_execution_api_passes(method: str, target: str, transport: str) -> None:
    """Other paths and methods of the server are refused, and never reach it."""
    async with conversation(transport) as talk:
        await talk.add_relay()
        server = await talk.add_container()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.split(":")[2].split("/")[0]))
        writer.write(f"{method} /execution/{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        raw = await reader.read()
        writer.close()
        assert raw.startswith(b"HTTP/1.1 403"), raw
        assert "The relay refused" in detail(raw.partition(b"\r\n\r\n")[2])
        assert not talk.api.requests


async def test_an_api_server_that_restarts_delays_requests_only(
    monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """While the API server refuses connections, a request waits for it; and it is carried out once."""
    async with conversation(transport) as talk:
        url, port = talk.api.url, free_port()
        talk.api.url = f"http://127.0.0.1:{port}/base/execution/"
        await talk.add_relay()
        server = await talk.add_container()
        asked = asyncio.create_task(talk.http.patch(server.url + STATE, data=b"{}").__aenter__())
        await asyncio.sleep(0.5)
        assert not asked.done()
        later = asyncio.create_task(talk.http.get(server.url + "health").__aenter__())
        site = web.TCPSite(talk.runner, "127.0.0.1", port)
        await site.start()
        assert (await asked).status == 200 and (await later).status == 200
        assert [method for method, path, _ in talk.api.requests if not path.endswith("health")] == ["PATCH"]
        talk.api.url = url


async def test_an_api_server_that_stays_away_is_named(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """If the API server cannot be reached for long, the client gets an error that names it, and may try again."""
    monkeypatch.setattr(relay_module, "HELD", 0.3)
    async with conversation(transport) as talk:
        talk.api.url = f"http://127.0.0.1:{free_port()}/execution/"
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.get(server.url + "health") as response:
            assert response.status == 503
            assert talk.api.url in detail(await response.read())


async def test_a_relay_without_requests_notices_an_api_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """Its log names the URL at the start, and once the server is up. Requests wait for that."""
    async with conversation() as talk:
        url, port = talk.api.url, free_port()
        talk.api.url = f"http://127.0.0.1:{port}/base/execution/"
        with caplog.at_level("INFO"):
            await talk.add_relay()
            await talk.relays[0].check_api()
            assert f"The API server at {talk.api.url} cannot be reached" in caplog.text
            await web.TCPSite(talk.runner, "127.0.0.1", port).start()
            await until(lambda: "can be reached again" in caplog.text)
        server = await talk.add_container(connected=False)
        async with talk.http.get(server.url + "health") as response:
            assert response.status == 200
        talk.api.url = url


async def test_a_redirect_is_not_followed(transport: str) -> None:
    """An API server that redirects gets no second request, wherever it points."""
    async with conversation(transport) as talk:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/secret"})

        talk.api.handler = redirect
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.get(server.url + "health") as response:
            assert response.status == 502 and "redirects" in detail(await response.read())
        assert len(talk.api.requests) == 1


async def test_the_number_of_values_of_an_xcom_arrives(transport: str) -> None:
    """A HEAD request has its headers, and no body."""
    async with conversation(transport) as talk:

        async def count(request: web.Request) -> web.Response:
            return web.Response(headers={"Content-Range": "map_indexes 3"})

        talk.api.handler = count
        await talk.add_relay()
        server = await talk.add_container()
        async with talk.http.head(server.url + "xcoms/d/r/t/return_value") as response:
            assert response.status == 200 and response.headers["Content-Range"] == "map_indexes 3"


async def test_nonsense_of_a_container_hurts_itself_alone() -> None:
    """Messages without sense are dropped or answered with an error; the relay goes on."""
    async with conversation() as talk:
        await talk.add_relay()
        session = Session(talk.pair.public)
        send = talk.memory.to_relays().send
        header = Header(Direction.REQUEST, talk.pair.id, session.name, "1", 1, time.time(), public=session.public.hex())
        await send(session.keys.seal(header, b"nonsense"))
        await send(session.keys.seal(dataclasses.replace(header, session="another"), b"nonsense"))
        await send(session.keys.seal(dataclasses.replace(header, sent_at=time.time() - 100), b"nonsense"))
        parted = dataclasses.replace(header, request_id="2", parts=2)
        part = session.keys.seal(dataclasses.replace(parted, part=1), b"nonsense")
        await send(session.keys.seal(parted, b""), [part], place=place_of(parted))
        items: list[object] = []
        while len(items) < 2:
            items += await talk.memory.to_relays().receive(session.name, 5)
        answers = [Answer.read(session.keys.open(Direction.ANSWER, *unpack(item))) for item in items]
        assert [answer.status for answer in answers] == [102, 400]
        server = await talk.add_container()
        async with talk.http.get(server.url + "health") as response:
            assert response.status == 200
        counts = talk.relays[0].counts
        assert (counts.refused, counts.late, len(talk.api.requests)) == (2, 1, 1)


async def test_a_flood_of_requests_is_answered_and_heartbeats_go_ahead(
    monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """Hundreds of requests at once are each carried out once, and no heartbeat waits for them."""
    monkeypatch.setattr(relay_client, "FIRST_RESEND", 3.0)
    monkeypatch.setattr(relay_client, "LONGEST_RESEND", 15.0)
    monkeypatch.setattr(tunnel_to_relays, "SILENCE", 60.0)  # On a busy machine, a relay may be silent for seconds.
    async with conversation(transport) as talk:

        async def slow(request: web.Request) -> web.Response:
            await asyncio.sleep(0.05)
            return web.Response(status=204)

        talk.api.handler = slow
        for _ in range(2):
            await talk.add_relay()
        servers = [await talk.add_container(f"ta-{number}") for number in range(20)]

        async def ask(server: LoopbackServer, number: int) -> int:
            async with talk.http.get(f"{server.url}variables/v{number}") as response:
                return response.status

        flood = [asyncio.create_task(ask(server, number)) for server in servers for number in range(25)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        async with talk.http.put(servers[0].url + "task-instances/1/heartbeat", data=b"{}") as response:
            assert response.status == 204
        waited, unanswered = time.monotonic() - began, sum(not task.done() for task in flood)
        assert await asyncio.gather(*flood) == [204] * 500
        paths = [path for _, path, _ in talk.api.requests]
        assert len(paths) == 501 and paths.index("/base/execution/task-instances/1/heartbeat") < 400
        assert unanswered, f"the heartbeat came last, after {waited:.1f} s"


async def test_a_relay_with_refused_credentials_ends() -> None:
    """Its successor reads them again."""
    async with conversation() as talk:

        async def refuse(*_: object) -> list[object]:
            raise AuthError("the token was revoked")

        talk.memory.get = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(AuthError):
            await (await talk.add_relay())
