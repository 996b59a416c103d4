"""A relay, or an executor, without keys: what is missing, and one line for it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import modal
import pytest
from modal import exception

from modalflow.errors import NotDeployedError
from modalflow.names import Names
from modalflow.relay import keys
from modalflow.relay.host import relay as relay_module
from modalflow.relay.host.counts import Counts
from modalflow.relay.host.relay import Relay
from modalflow.relay.keys import KeyRing
from tests.unit.relay.conversation import key_pair


class Found:
    """An object of Modal that exists or not."""

    def __init__(self, *, exists: bool) -> None:
        self.exists = exists
        self.spawn = self

    async def aio(self, *_: Any, **__: Any) -> None:
        if not self.exists:
            raise exception.NotFoundError("No app 'nosuch' is deployed in environment 'main'")


@pytest.mark.parametrize(("app_exists", "said"), [(False, "There is no worker app 'nosuch'"), (True, "no relay key")])
async def test_an_unknown_app_is_no_old_deployment(
    monkeypatch: pytest.MonkeyPatch, app_exists: bool, said: str
) -> None:
    """A misspelt name has another fix than a worker without keys."""
    monkeypatch.setattr(modal.Function, "from_name", lambda *_, **__: Found(exists=False))
    monkeypatch.setattr(modal.App, "lookup", Found(exists=app_exists))
    with pytest.raises(NotDeployedError) as caught:
        await keys.fetch_keys(Names("nosuch"), client=None, environment_name="dev")
    text = str(caught.value)
    assert said in text and "modalflow deploy --app nosuch" in text
    assert ("'dev'" in text and "--app and" in text) is not app_exists


async def test_the_same_error_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A relay waits for its app for hours without filling a log; another error is logged."""
    monkeypatch.setattr(relay_module, "FIRST_PAUSE", 0.0)
    errors = [*[NotDeployedError("no app")] * 5, NotDeployedError("no key")]
    pair = key_pair()

    async def fetch() -> KeyRing:
        if errors:
            raise errors.pop(0)
        return KeyRing({pair.id: pair})

    relay = Relay("relay", cast(Any, None), cast(Any, None), fetch, Counts())
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(20):
            assert (await relay._first_keys()).newest.id == pair.id
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["no app", "no key"]
