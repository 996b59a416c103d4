"""Whoever notices that credentials are refused has them read anew."""

from __future__ import annotations

import asyncio

import pytest
from modal import exception

from modalflow.errors import CredentialsError
from modalflow.executor.modal_api.modal_api import Remote


def remote_of(noticed: list[str]) -> Remote:
    remote = Remote.__new__(Remote)
    remote.counted = lambda rpc, error: None
    remote.refused = lambda: noticed.append("refused")
    return remote


@pytest.mark.parametrize(
    ("error", "noticed"), [(exception.AuthError("token revoked"), ["refused"]), (exception.ServiceError("ill"), [])]
)
def test_any_call_notices(error: Exception, noticed: list[str]) -> None:
    """Events, sweeps, cancellations and the ledger, and not submissions alone."""

    async def answer() -> None:
        raise error

    seen: list[str] = []
    with pytest.raises(type(error)):
        asyncio.run(remote_of(seen)._ask("DictGet", answer()))
    assert seen == noticed


def test_the_log_volume_notices_too() -> None:
    """Its failures come from a thread of their own."""
    seen: list[str] = []
    remote_of(seen).heard(CredentialsError("refused"))
    assert seen == ["refused"]
