"""The relay's way to the API server: TLS with an authority of one's own, a corporate proxy, IPv6, a base path."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modalflow.errors import ConfigError
from modalflow.relay.host.api_server import ApiServer, UnreachableError
from modalflow.relay.messages import Request
from tests.unit.relay.conversation import carry_out


@asynccontextmanager
async def server(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that records what it is asked; yields its port and the record."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        return web.Response(status=204)

    async def any_method(request: web.BaseRequest) -> web.StreamResponse:
        return await answer(request)  # type: ignore[arg-type]

    runner = web.ServerRunner(web.Server(any_method))
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that signs itself: the file for clients, and the server's side."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "corporate authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(pem)
    (folder / "server.pem").write_bytes(private + pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", context


async def test_a_base_path_and_ipv6() -> None:
    """The path below the host's own URL is kept, and its address may be IPv6's."""
    async with server("::1") as (port, asked), ApiServer(f"http://[::1]:{port}/team/a/execution") as api:
        assert (await carry_out(api, Request("GET", "xcoms/d/r%2F1/t/k?map_index=-1"))).status == 204
        assert asked == ["/team/a/execution/xcoms/d/r%2F1/t/k?map_index=-1"]


async def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    """The file in [api] ssl_cert is trusted; without it, the server's certificate is refused."""
    ca, context = authority(tmp_path)
    async with server(tls=context) as (port, _):
        url = f"https://127.0.0.1:{port}/execution/"
        async with ApiServer(url, ca=str(ca)) as api:
            assert (await carry_out(api, Request("GET", "health"))).status == 204
        async with ApiServer(url) as api:
            with pytest.raises(UnreachableError, match="certificate"):
                await carry_out(api, Request("GET", "health"))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_file_of_certificates_is_named(tmp_path: Path, content: str | None) -> None:
    """A missing or an empty file is an error of the configuration, before anything is relayed."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="ssl_cert"):
        ApiServer("https://127.0.0.1:1/execution/", ca=str(file))


async def test_a_proxy_of_the_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY leads to the API server, except for the hosts in NO_PROXY."""
    async with server() as (port, asked_proxy), server() as (own_port, asked_server):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        async with ApiServer("http://airflow.corp.example/execution/") as api:
            assert (await carry_out(api, Request("GET", "health"))).status == 204
        assert asked_proxy == ["http://airflow.corp.example/execution/health"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with ApiServer(f"http://127.0.0.1:{own_port}/execution/") as api:
            assert (await carry_out(api, Request("GET", "health"))).status == 204
        assert asked_server == ["/execution/health"] and len(asked_proxy) == 1
