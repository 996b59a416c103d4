"""The relays that an executor starts: their ends, and the reports that they leave behind."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from modalflow.config.settings import Settings
from modalflow.executor import relays
from modalflow.executor.connection import Connection
from modalflow.executor.modal_api.modal_api import ModalApi
from modalflow.executor.relays import RelayKey, RelayProcesses
from modalflow.protocol.relay_report import RELAY, name_of_relay
from tests.wired import Observer


class Reports:
    """The Dict of the relays' reports."""

    def __init__(self, *keys: str) -> None:
        self.found = dict.fromkeys(keys, "{}")
        self.keys, self.pop = self, self

    async def _keys(self) -> Any:
        for key in list(self.found):
            yield key

    def aio(self, *arguments: Any) -> Any:
        return self._pop(*arguments) if arguments else self._keys()

    async def _pop(self, key: str, default: None) -> str | None:
        return self.found.pop(key, default)


def api_of(reports: Reports) -> ModalApi:
    api = ModalApi.__new__(ModalApi)
    api._observer, api._relays = Observer(), reports
    return api


def processes_of(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> RelayProcesses:
    """Return the processes of one relay that runs a shell script instead of `modalflow relay`."""
    script = tmp_path / "relay"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    settings = dataclasses.replace(Settings.defaults(), execution_api="relay", execution_api_url="http://a/", relays=1)
    connection = Connection(cast(Any, api))
    return RelayProcesses(settings, RelayKey(connection, wanted=True), connection)


async def test_only_the_report_of_the_ended_relay_is_removed() -> None:
    """Relays of other machines and processes report in the same Dict, and the newest key is there as well."""
    ended, other = RELAY + name_of_relay(12, "ab12"), RELAY + name_of_relay(123, "ab12")
    reports = Reports(ended, other, "newest-key")
    await api_of(reports).withdraw_relay(name_of_relay(12))
    assert list(reports.found) == [other, "newest-key"]


async def test_a_killed_relay_is_not_shown_as_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot remove its report. The executor does, and starts the next one."""
    monkeypatch.setattr(relays, "FIRST_PAUSE", 0.01)
    removed: list[str] = []

    class Api:
        async def withdraw_relay(self, name: str) -> None:
            removed.append(name)

    processes = processes_of(Api(), tmp_path, monkeypatch, f"echo $$ >> {tmp_path}/pids; kill -KILL $$")
    running = asyncio.create_task(processes._keep_running(1))
    try:
        async with asyncio.timeout(20):
            while len(removed) < 2:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    pids = (tmp_path / "pids").read_text().split()
    assert removed[:2] == [name_of_relay(int(pid)) for pid in pids[:2]]


async def test_the_last_words_of_a_relay_are_in_the_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`modalflow status` shows the warning. Each line of a relay has its number and its level in the log."""
    caplog.set_level(logging.INFO, "modalflow.executor")
    lines = ("2026-01-01 00:00:00,123 WARNING No requests", "Error: Modal did not answer within 30 s.")
    program = "\n".join([*(f"echo '{line}' >&2" for line in lines), "exit 1"])
    end = await processes_of(None, tmp_path, monkeypatch, program)._run_one(2)
    assert str(end) == "1 (Error: Modal did not answer within 30 s)"
    found = {record.getMessage(): record.levelname for record in caplog.records}
    assert found["Relay 2: No requests"] == "WARNING"
    assert found["Relay 2: Error: Modal did not answer within 30 s."] == "ERROR"


async def test_an_ended_relay_is_replaced_though_a_process_keeps_its_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork of the scheduler can keep the pipe open for hours. A usual line of the log is no reason of an end."""
    program = "sleep 60 & echo $! > $0.pid; echo '2026-01-01 00:00:00,123 INFO Relay a sends requests' >&2"
    try:
        async with asyncio.timeout(30):
            end = await processes_of(None, tmp_path, monkeypatch, program)._run_one(1)
    finally:
        os.kill(int((tmp_path / "relay.pid").read_text()), signal.SIGKILL)
    assert str(end) == "0"
