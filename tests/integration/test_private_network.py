"""A control plane at an address of a private network: it works as on a loopback address, and lets no one in without
the token."""

from __future__ import annotations

import ipaddress
import socket
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import modal
import pytest
from click.testing import CliRunner
from modal.exception import AuthError

from modalflow.cli.local.local import local
from modalflow.emulator import LocalModal
from tests.sdk import client_of

#: Larger than a message of the SDK: it travels over HTTP.
LARGE = b"x" * (3 << 20)


@pytest.fixture(scope="module")
def address() -> str:
    """This machine's address in a private network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: the system chooses the address of the network that leads there.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network besides its loopback")
        found = str(probe.getsockname()[0])
    if ipaddress.ip_address(found).is_loopback or ipaddress.ip_address(found).is_global:
        pytest.skip(f"{found} is no address of a private network")
    return found


def test_functions_and_large_values_work_at_this_address(address: str) -> None:
    """Clients get URLs with this address, and containers use them, too."""
    app = modal.App("of-a-network")

    @app.function(serialized=True)
    def double(data: bytes) -> bytes:
        return data * 2

    with LocalModal(host=address) as control_plane:
        assert control_plane.url.startswith(f"http://{address}:")
        with app.run():
            assert double.remote(LARGE) == LARGE * 2


def test_no_one_gets_in_without_the_token(address: str) -> None:
    """Neither the RPCs nor the HTTP server answer a stranger in the network."""
    with LocalModal(host=address) as control_plane:
        stranger = {"MODAL_TOKEN_ID": "ak-wrong", "MODAL_TOKEN_SECRET": "as-wrong"}
        with pytest.raises(AuthError), client_of(control_plane.url, stranger) as client:
            modal.Dict.objects.list(client=client)
        for path, status in (("/control/faults", 401), ("/download/invented", 403)):
            with pytest.raises(HTTPError) as refusal:
                urlopen(Request(control_plane.address.control_url + path), timeout=30)
            assert refusal.value.code == status


def test_the_command_warns(address: str) -> None:
    """The warning names the address; a loopback address needs none."""
    done = CliRunner().invoke(local, ["run", "--host", address, "--", "true"])
    assert done.exit_code == 0
    assert f"Warning: The control plane listens on {address}." in done.stderr
