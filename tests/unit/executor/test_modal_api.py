"""Refused credentials are noticed, whichever call of Modal's API meets them."""

from __future__ import annotations

import asyncio
from typing import cast

import modal
import pytest
from modal import exception

from modalflow.control_plane import ControlPlane
from modalflow.errors import CredentialsError
from modalflow.executor.modal_api.modal_api import ModalApi
from modalflow.names import Names
from tests.wired import Observer


def api_of(observer: Observer) -> ModalApi:
    api = ModalApi.__new__(ModalApi)
    api._observer = observer
    return api


@pytest.mark.parametrize(
    ("error", "refusals"), [(exception.AuthError("token revoked"), 1), (exception.ServiceError("ill"), 0)]
)
def test_any_call_notices(error: Exception, refusals: int) -> None:
    """Events, sweeps, cancellations and the ledger, and not submissions alone."""

    async def answer() -> None:
        raise error

    observer = Observer()
    with pytest.raises(type(error)):
        asyncio.run(api_of(observer)._ask("DictGet", answer()))
    assert observer.refusals == refusals


def test_the_log_volume_notices_too() -> None:
    """Its failures come from a thread of their own."""
    observer = Observer()
    api_of(observer).on_failure(CredentialsError("refused"))
    assert observer.refusals == 1


@pytest.mark.parametrize("has_key", [True, False])
def test_a_task_with_secrets_of_its_own_can_still_read_the_hosts(has_key: bool) -> None:
    """Modal replaces the Secrets of the Function, and the key to the host's secret settings is one of them."""
    api = api_of(Observer())
    api._names, api._has_home_key = Names("app"), has_key
    api.control_plane = ControlPlane(cast(modal.Client, None), None)
    secrets = api._arguments({"secrets": ["own"]})["secrets"]
    assert [secret.name for secret in secrets] == (["own", "app-home-key"] if has_key else ["own"])
    assert "secrets" not in api._arguments({"cpu": 1})
