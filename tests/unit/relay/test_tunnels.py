"""Tunnels on their own: addresses, the proof of a relay, strangers, and connections that end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from modalflow.errors import MalformedMessageError
from modalflow.relay.container import relay_client, tunnel_to_relays
from modalflow.relay.container.relay_client import RelayClient
from modalflow.relay.container.tunnel_to_relays import TunnelToRelays
from modalflow.relay.encryption import Session
from modalflow.relay.host import relay as relay_module
from modalflow.relay.host import tunnels_to_containers
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.messages import Direction, Header
from modalflow.relay.tunnel import Address, Wire, prove_relay
from tests.unit.relay.conversation import Conversation, conversation, detail, key_pair, until
from tests.unit.relay.deaf_container import deaf_container
from tests.unit.relay.memory_transport import MemoryTransport


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send again after a short time, as after a long one."""
    monkeypatch.setattr(relay_client, "FIRST_RESEND", 0.2)
    monkeypatch.setattr(relay_client, "LONGEST_RESEND", 0.4)
    monkeypatch.setattr(tunnel_to_relays, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(tunnel_to_relays, "REQUEST_PAUSE", 0.05)


@given(st.text() | st.builds("{}://{}:{}".format, st.sampled_from(["tls", "tcp", ""]), st.text(), st.text()))
def test_an_address_is_read_as_it_was_written_or_refused(text: str) -> None:
    """Any other text is a MalformedMessageError, and nothing worse."""
    with contextlib.suppress(MalformedMessageError):
        assert Address.read(str(Address.read(text))) == Address.read(text)


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:80", "tcp://[::1]:8080", "tls://r1.modal.host:443"])
def test_addresses_of_tunnels(text: str) -> None:
    """IPv4, IPv6 and names are addresses."""
    assert str(Address.read(text)) == text


async def get(talk: Conversation, url: str) -> int:
    async with talk.http.get(url + "health") as response:
        return response.status


async def test_requests_travel_through_the_tunnel_and_are_not_readable_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a connection, the other transport carries nothing; and neither token nor content is readable."""
    frames: list[bytes] = []
    write = Wire.write

    def recorded(self: Wire, item: bytes, place: str = "") -> None:
        frames.append(item)
        write(self, item, place)

    monkeypatch.setattr(Wire, "write", recorded)
    async with conversation("tunnel") as talk:
        await talk.add_relay()
        server = await talk.add_container()
        before = len(talk.memory.requests), len(talk.memory.answers)
        async with talk.http.get(server.url + "variables/pin", headers={"Authorization": "Bearer secret-token"}) as got:
            assert got.status == 200
        assert (len(talk.memory.requests), len(talk.memory.answers)) == before
        assert talk.tunnels[0].sent == 1
    assert len(frames) >= 4
    for frame in frames:
        assert b"secret-token" not in frame and b"variables" not in frame and b"GET" not in frame


async def test_a_relay_without_tunnels_gets_requests_over_the_other_transport() -> None:
    """It refuses to connect, as one of an older version does; and nothing is lost."""
    async with conversation("tunnel") as talk:
        talk.transport = "queues"
        await talk.add_relay("old")
        talk.transport = "tunnel"
        server = await talk.add_container(connected=False)
        for _ in range(2):
            assert await get(talk, server.url) == 200
        assert not talk.tunnels[0].connected


async def test_without_a_tunnel_requests_travel_over_the_other_transport() -> None:
    """A container that can have no tunnel loses nothing."""
    memory, asked = MemoryTransport(), list[object]()

    class Forbidden(contextlib.AbstractAsyncContextManager[Address]):
        async def __aenter__(self) -> Address:
            asked.append(self)
            raise PermissionError("no tunnels here")

        async def __aexit__(self, *_: object) -> None: ...

    tunnel = TunnelToRelays(memory.to_relays(), Session(key_pair().public), lambda port: Forbidden())
    running = asyncio.create_task(tunnel.run(RelayClient(tunnel, tunnel._session, "ta-1", print).ask))
    await tunnel.send(b"first")
    await until(lambda: bool(asked))
    await tunnel.send(b"second")
    assert memory.requests == [b"first", b"second"] and not running.done()
    running.cancel()


async def test_a_stranger_gets_nothing_from_a_container_and_cannot_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects without the relay key is disconnected: before a relay, beside one, and with another key."""
    monkeypatch.setattr(tunnel_to_relays, "CONNECT_TIMEOUT", 0.3)
    async with conversation("tunnel") as talk:
        ports: list[int] = []
        forward = tunnel_to_relays.TunnelToRelays._listening

        @asynccontextmanager
        async def listening(self: TunnelToRelays) -> AsyncIterator[int]:
            async with forward(self) as port:
                ports.append(port)
                yield port

        monkeypatch.setattr(TunnelToRelays, "_listening", listening)
        await talk.add_relay()
        server = await talk.add_container()
        silent, *others = [await asyncio.open_connection("127.0.0.1", ports[0]) for _ in range(4)]
        foreign = Session(key_pair().public)
        for number, (reader, writer) in enumerate(others):
            wire = Wire(reader, writer)
            if number == 0:
                writer.write(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(2000))
            elif number == 1:
                await prove_relay(wire, foreign.keys, key_id=foreign.key_id, session=foreign.name, relay="evil")
            else:
                _, challenge = await wire.read()
                header = Header(Direction.ANSWER, talk.pair.id, talk.tunnels[0]._session.name, "proof", 1, 1.0)
                wire.write(foreign.keys.seal(header, challenge))
        assert await get(talk, server.url) == 200
        for reader, writer in (silent, *others):
            with contextlib.suppress(OSError):
                # Nothing but the challenge.
                assert len(await reader.read()) <= 5 + 32
            writer.close()
        assert len(talk.tunnels[0]._wires) == 1


@pytest.mark.parametrize(
    "target, status",
    [
        ("tcp://10.0.0.1:5432", 403),
        ("tls://internal.example:443", 403),
        ("tls://evil.modal.host.example:443", 403),
        ("tls://127.0.0.1:443", 403),
        ("http://x", 400),
        ("tcp://127.0.0.1:1", 502),
    ],
)
async def test_a_relay_connects_to_tunnels_alone(target: str, status: int) -> None:
    """A container cannot make a relay connect to other places."""
    tunnels = TunnelsToContainers("r", MemoryTransport().to_containers(), local=True)
    session = Session(key_pair().public)
    header = Header(Direction.REQUEST, session.key_id, session.name, "1", 1, 1.0)
    answer = await tunnels.connect(header, session.keys, target)
    assert answer.status == status and detail(answer.body)
    assert not tunnels.connections


async def test_on_modal_a_relay_connects_to_modals_domain_with_tls_alone() -> None:
    """A loopback address is Airflow's own host there."""
    tunnels = TunnelsToContainers("r", MemoryTransport().to_containers(), local=False)
    session = Session(key_pair().public)
    header = Header(Direction.REQUEST, session.key_id, session.name, "1", 1, 1.0)
    for target in ("tcp://127.0.0.1:80", "tcp://r1.modal.host:80", "tls://modal.host:443", "tls://xmodal.host:443"):
        assert (await tunnels.connect(header, session.keys, target)).status == 403


async def test_a_relay_tells_a_tunnel_from_another_server() -> None:
    """A server that is no container gets no proof of use elsewhere, and no requests."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        seen.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tunnels = TunnelsToContainers("r", MemoryTransport().to_containers(), local=True)
    session = Session(key_pair().public)
    header = Header(Direction.REQUEST, session.key_id, session.name, "1", 1, 1.0)
    port = server.sockets[0].getsockname()[1]
    assert (await tunnels.connect(header, session.keys, f"tcp://127.0.0.1:{port}")).status == 502
    await until(lambda: bool(seen))
    assert seen == [b""]
    server.close()


async def test_a_tunnel_of_modal_has_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The relay checks the certificate of a tunnel with TLS."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost",
        shell=True,
        check=True,
        capture_output=True,
    )
    monkeypatch.setattr(tunnels_to_containers, "DOMAIN", "localhost")
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    session = Session(key_pair().public)
    container = TunnelToRelays(MemoryTransport().to_relays(), session)
    server = await asyncio.start_server(container._serve, "127.0.0.1", 0, ssl=ours)
    target = f"tls://localhost:{server.sockets[0].getsockname()[1]}"
    header = Header(Direction.REQUEST, session.key_id, session.name, "1", 1, 1.0)
    tunnels = TunnelsToContainers("r", MemoryTransport().to_containers(), local=False)
    refused = await tunnels.connect(header, session.keys, target)
    assert refused.status == 502 and "certificate" in detail(refused.body).lower()
    default = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: default(cafile=str(certificate)))
    tunnels = TunnelsToContainers("r", MemoryTransport().to_containers(), local=False)
    assert (await tunnels.connect(header, session.keys, target)).status == 204
    await until(lambda: container.connected)
    await tunnels.end()
    await until(lambda: not container.connected)
    server.close()


async def test_after_the_end_of_a_connection_requests_reach_another_relay() -> None:
    """A killed relay's containers go on over the other transport, and then through a tunnel to another relay."""
    async with conversation("tunnel") as talk:
        first = await talk.add_relay("first")
        server = await talk.add_container()
        assert await get(talk, server.url) == 200
        first.cancel()
        await until(lambda: not talk.tunnels[0].connected)
        await talk.add_relay("second")
        sent = talk.tunnels[0].sent
        assert await get(talk, server.url) == 200
        await until(lambda: talk.tunnels[0].connected)
        assert await get(talk, server.url) == 200
        assert talk.tunnels[0].sent > sent


async def test_a_relay_that_stalls_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without any sign of its relay is given up; the request arrives over the other transport."""
    monkeypatch.setattr(tunnel_to_relays, "SILENCE", 0.3)
    async with conversation("tunnel") as talk:
        await talk.add_relay("stalls")
        server = await talk.add_container()

        async def nothing(self: TunnelsToContainers, wire: Wire, session: str) -> None:
            await asyncio.sleep(60)

        # Whatever it has received stays with it.
        (tunnels,) = [talk.relays[0]._tunnels]
        assert tunnels is not None
        for reader in tunnels._readers:
            reader.cancel()
        monkeypatch.setattr(TunnelsToContainers, "_read", nothing)
        await until(lambda: not talk.tunnels[0].connected)

        def connected_again() -> bool:
            talk.tunnels[0].want()
            return talk.tunnels[0].connected

        await until(connected_again)
        assert await get(talk, server.url) == 200
        assert talk.tunnels[0].sent >= 1


async def test_a_relay_without_its_api_server_leaves_its_containers_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections end, so that requests reach a relay that can carry them out."""
    monkeypatch.setattr(relay_module, "HELD", 0.3)
    async with conversation("tunnel") as talk:
        url = talk.api.url
        talk.api.url = "http://127.0.0.1:9/execution/"
        await talk.add_relay("lost")
        server = await talk.add_container()
        talk.api.url = url
        await talk.add_relay("good")
        # The lost relay keeps what it had received when it noticed: a request on a connection, and one from the queue.
        answers = [await get(talk, server.url) for _ in range(3)]
        assert answers[-1] == 200 and set(answers[:2]) <= {200, 503}
        assert talk.relays[1].counts.requests > 0


async def test_heartbeats_pass_between_the_parts_of_a_large_message() -> None:
    """A large XCom on its way holds up no heartbeat of the same container for long."""
    async with conversation("tunnel") as talk:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=204)

        talk.api.handler = answer
        await talk.add_relay()
        server = await talk.add_container()
        large = asyncio.create_task(talk.http.post(server.url + "xcoms/d/r/t/k", data=b"x" * 10_000_000).__aenter__())
        async with talk.http.put(server.url + "task-instances/1/heartbeat", data=b"{}") as response:
            assert response.status == 204 and not large.done()
        assert (await large).status == 204


async def test_a_container_that_reads_no_answers_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection ends."""
    monkeypatch.setattr(tunnels_to_containers, "_MOST_ANSWERS", 1000)
    async with deaf_container() as deaf:
        with pytest.raises(ConnectionError):
            for _ in range(100):
                await deaf.tunnels.send(deaf.session, [b"x" * 900_000])
        await until(lambda: not deaf.tunnels.connections)
        await deaf.tunnels.send(deaf.session, [b"later"])
        assert deaf.memory.answers == [b"later"]


async def test_a_relay_with_enough_connections_leaves_the_others_to_modal_queues() -> None:
    """A container beyond the limit is answered over the other transport."""
    async with conversation("tunnel") as talk:
        await talk.add_relay()
        await talk.add_container("ta-1")
        tunnels = talk.relays[0]._tunnels
        assert tunnels is not None
        tunnels._most = 1
        server = await talk.add_container("ta-2", connected=False)
        for _ in range(2):
            assert await get(talk, server.url) == 200
        assert tunnels.connections == 1 and not talk.tunnels[1].connected
