"""The relay's key in an executor: before the first submission, and after a rotation."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import subprocess
import sys
from typing import Any, cast

import pytest

from modalflow.config.settings import Settings
from modalflow.errors import ControlPlaneUnreachableError, NotDeployedError
from modalflow.executor import relays
from modalflow.executor.connection import Connection
from modalflow.executor.relays import RelayKey, RelayProcesses


class PlayedApi:
    """Answers with the next of its keys or errors."""

    def __init__(self, *answers: str | Exception, newest: str = "") -> None:
        self.answers, self.newest = list(answers), newest

    async def relay_key(self) -> str:
        answer = self.answers.pop(0) if self.answers else NotDeployedError("deploy again")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def newest_relay_key_id(self) -> str:
        return self.newest


def key_of(api: PlayedApi, *, wanted: bool = True, optional: bool = False) -> tuple[RelayKey, Connection]:
    connection = Connection(cast(Any, api))
    return RelayKey(connection, wanted=wanted, optional=optional), connection


async def test_an_executor_without_the_relay_needs_no_key() -> None:
    """Direct requests wait for nothing, and nothing is asked."""
    key, connection = key_of(PlayedApi(), wanted=False)
    await key.fetch_first(cast(Any, None))
    await key.known()
    assert connection.relay == ""


async def test_a_worker_without_a_key_is_an_error_at_the_start() -> None:
    """The executor of an old deployment does not start, and names the command."""
    api = PlayedApi(NotDeployedError("deploy again"))
    key, _ = key_of(api)
    with pytest.raises(NotDeployedError):
        await key.fetch_first(cast(Any, api))


async def test_new_workloads_wait_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow key delays submissions and nothing else; the reason is shown; a newer key replaces it."""
    monkeypatch.setattr(relays, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(relays, "KEY_INTERVAL", 0.01)
    slow = ControlPlaneUnreachableError("no container")
    api = PlayedApi(slow, slow, "1:aa", "2:bb", newest="1")
    key, connection = key_of(api)
    await key.fetch_first(cast(Any, api))
    waiting = asyncio.create_task(key.known())
    await asyncio.sleep(0)
    assert not waiting.done()
    running = asyncio.create_task(key.run())
    try:
        async with asyncio.timeout(5):
            await waiting
            assert connection.relay == "1:aa" and not connection.obstacle
            api.newest = "2"
            while connection.relay != "2:bb":
                await asyncio.sleep(0.01)
    finally:
        running.cancel()


@pytest.mark.parametrize("first", [NotDeployedError("deploy again"), ControlPlaneUnreachableError("no container")])
async def test_an_old_worker_works_directly_until_it_is_deployed_again(
    monkeypatch: pytest.MonkeyPatch, first: Exception
) -> None:
    """After an upgrade of the executor alone, workloads go on without the relay, also if Modal is slow to answer; a
    later deployment switches to it."""
    monkeypatch.setattr(relays, "KEY_INTERVAL", 0.01)
    monkeypatch.setattr(relays, "RETRY_PAUSE", 0.01)
    api = PlayedApi(first, ControlPlaneUnreachableError("no container"), NotDeployedError("deploy again"))
    key, connection = key_of(api, optional=True)
    await key.fetch_first(cast(Any, api))
    running = asyncio.create_task(key.run())
    try:
        async with asyncio.timeout(5):
            await key.known()
            assert connection.relay == ""
            while api.answers:
                await asyncio.sleep(0.01)
            assert not connection.obstacle
            api.answers.append("1:aa")
            await key.made()
        assert connection.relay == "1:aa"
    finally:
        running.cancel()


async def test_a_fork_of_the_scheduler_does_not_stop_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """LocalExecutor may fork workers while a relay starts. They keep open a pipe whose end subprocess waits for after a
    fork, and the engine's loop would wait with it; posix_spawn needs none."""

    def forked(*_: Any) -> None:
        raise AssertionError("subprocess forked")

    monkeypatch.setattr(subprocess, "_fork_exec", forked)
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    settings = dataclasses.replace(Settings.defaults(), execution_api="relay", execution_api_url="http://a/")
    key, connection = key_of(PlayedApi())
    assert (await RelayProcesses(settings, key, connection)._run_one(1)).code == 0
