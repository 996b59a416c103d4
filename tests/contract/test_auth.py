"""Who is let in."""

from __future__ import annotations

import modal
import pytest
from modal.exception import AuthError
from modal_proto import api_pb2

from modalflow.emulator.local import LocalModal


@pytest.mark.parametrize("wrong", ["id", "secret", "both"])
def test_a_wrong_token_is_refused(local: LocalModal, wrong: str) -> None:
    """A token whose id or secret is not right is AuthError, whatever is asked for."""
    token_id = local.env["MODAL_TOKEN_ID"] if wrong == "secret" else "ak-wrong"
    secret = local.env["MODAL_TOKEN_SECRET"] if wrong == "id" else "as-wrong"
    with (
        pytest.raises(AuthError),
        modal.Client(local.url, api_pb2.CLIENT_TYPE_CLIENT, (token_id, secret)) as client,
    ):
        modal.Dict.objects.list(client=client)


def test_the_right_token_is_let_in(client: modal.Client) -> None:
    """With the right token the same call succeeds."""
    assert isinstance(modal.Dict.objects.list(client=client), list)


@pytest.mark.local_only
def test_a_container_that_nobody_started_is_refused(local: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invented container identity opens nothing, not even together with the right token."""
    monkeypatch.setenv("MODAL_OVERRIDE_HEADERS", "x-local-container-id:ta-invented,x-local-container-secret:guess")
    credentials = (local.env["MODAL_TOKEN_ID"], local.env["MODAL_TOKEN_SECRET"])
    with pytest.raises(AuthError), modal.Client(local.url, api_pb2.CLIENT_TYPE_CLIENT, credentials) as client:
        modal.Dict.objects.list(client=client)
