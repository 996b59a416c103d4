"""Refused credentials are noticed, whichever call of Modal's API meets them."""

from __future__ import annotations

import asyncio

import pytest
from modal import exception

from modalflow.errors import CredentialsError
from modalflow.executor.modal_api.modal_api import ModalApi
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
