"""Who is let in."""

from __future__ import annotations

import modal
import pytest
from modal.exception import AuthError

from modalflow.emulator.local import LocalModal
from tests.sdk import client_of


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


@pytest.mark.local_only
def test_a_container_that_nobody_started_is_refused(local: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invented container identity opens nothing, not even together with the right token."""
    monkeypatch.setenv("MODAL_OVERRIDE_HEADERS", "x-local-container-id:ta-invented,x-local-container-secret:guess")
    with pytest.raises(AuthError), client_of(local.url, local.env) as client:
        modal.Dict.objects.list(client=client)
