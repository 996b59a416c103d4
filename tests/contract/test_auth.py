"""Who is let in."""

from __future__ import annotations

import modal
import pytest
from modal.exception import AuthError, PermissionDeniedError
from modal_proto import api_pb2

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of, rpc


@pytest.mark.parametrize("wrong", ["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "both"])
def test_a_wrong_token_is_refused(local: LocalModal, wrong: str) -> None:
    """A token whose id or secret is not right is AuthError, whatever is asked for."""
    invented = {"MODAL_TOKEN_ID": "ak-wrong", "MODAL_TOKEN_SECRET": "as-wrong"}
    env = {name: value if wrong in (name, "both") else local.env[name] for name, value in invented.items()}
    with pytest.raises(AuthError), client_of(local.url, env) as client:
        modal.Dict.objects.list(client=client)


def test_the_right_token_is_let_in(client: modal.Client) -> None:
    """With the right token the same call succeeds."""
    assert isinstance(modal.Dict.objects.list(client=client), list)


def test_nobody_is_let_in_without_a_token(local: LocalModal) -> None:
    """Who sends no token at all, as a container would, is refused on the address that clients use."""
    with (
        pytest.raises(AuthError),
        modal.Client(local.url, api_pb2.CLIENT_TYPE_CONTAINER, None) as client,
    ):
        modal.Dict.objects.list(client=client)


@pytest.mark.local_only
def test_a_client_is_no_container(client: modal.Client) -> None:
    """The right token does not open the RPCs of containers: what a container is told is for it alone."""
    with pytest.raises(PermissionDeniedError):
        rpc(client, "FunctionGetInputs", api_pb2.FunctionGetInputsRequest(function_id="fu-invented"))


@pytest.mark.local_only
def test_the_sdk_works_in_what_a_container_starts(client: modal.Client, notes: modal.Dict, name: str) -> None:
    """A subprocess of a container uses the SDK as the container does, with no token and no header of its own."""
    app = Deployed("compute_app", name, client)
    try:
        app.call("notes_in_a_subprocess", notes.name, "seen")
        assert notes["seen"] == "from a subprocess"
    finally:
        app.stop()
