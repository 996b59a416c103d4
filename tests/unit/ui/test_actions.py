"""The doctor in Airflow's UI: a stream of findings, one examination at a time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from modalflow.operations.doctor.findings import Finding, ok, warn
from modalflow.ui import actions
from modalflow.ui.actions import Actions
from tests.unit.ui.server import unreachable


async def test_findings_arrive_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is there while the container of a later one starts; another user waits."""
    gate = threading.Event()

    def examine(**_: object) -> Iterator[Finding]:
        yield ok("configuration", "fine", 0.5)
        assert gate.wait(30)
        yield warn("worker", "old", "Deploy it again")

    monkeypatch.setattr(actions, "examine", examine)
    acting = Actions(unreachable)
    lines = acting.examination()
    assert lines is not None
    first = json.loads(await anext(lines))
    assert first == {"name": "configuration", "status": "ok", "detail": "fine", "advice": "", "seconds": 0.5}
    assert acting.examination() is None
    gate.set()
    assert [json.loads(line)["advice"] async for line in lines] == ["Deploy it again"]
    again = acting.examination()
    assert again is not None
    assert len([line async for line in again]) == 2


async def test_a_failing_doctor_is_the_last_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one can begin."""

    def examine(**_: object) -> Iterator[Finding]:
        yield ok("configuration", "fine")
        raise OSError("no space")

    monkeypatch.setattr(actions, "examine", examine)
    acting = Actions(unreachable)
    for _ in range(2):
        lines = acting.examination()
        assert lines is not None
        found = [json.loads(line) async for line in lines]
        assert [each["status"] for each in found] == ["ok", "fail"]
        assert "no space" in found[1]["detail"]


async def test_the_doctor_ends_without_its_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed tab does not keep the next user from it."""
    monkeypatch.setattr(actions, "examine", lambda **_: iter([ok("a", "b"), ok("c", "d")]))
    acting = Actions(unreachable)
    lines = acting.examination()
    assert lines is not None
    await anext(lines)
    await lines.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        while (again := acting.examination()) is None:
            await asyncio.sleep(0.01)
    assert len([line async for line in again]) == 2
