"""The options of running executors beside this machine's."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from modalflow import __version__
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.errors import HomeError
from modalflow.operations.doctor import executor_side
from modalflow.operations.doctor.findings import Finding
from modalflow.protocol.snapshot import Snapshot

BERLIN = HomeSnapshot({"core": {"default_timezone": "Europe/Berlin"}})
PARIS = HomeSnapshot({"core": {"default_timezone": "Europe/Paris"}})
SITE: Any = SimpleNamespace()


class Store:
    """The homes on the logs Volume."""

    files = None


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, HomeSnapshot]:
    """The homes on the logs Volume, by id."""
    homes = {BERLIN.id: BERLIN, PARIS.id: PARIS}

    def snapshot_of(_: object, id: str) -> HomeSnapshot:
        if id not in homes:
            raise HomeError("It is damaged.")
        return homes[id]

    monkeypatch.setattr(executor_side, "home_store", lambda _: Store())
    monkeypatch.setattr(executor_side, "snapshot_of", snapshot_of)
    return homes


def finding(monkeypatch: pytest.MonkeyPatch, home: str, team: str = "") -> Finding:
    """The line about an executor that published a home; this machine has BERLIN, and PARIS for team A."""
    report = Snapshot("p", "host", 7, team=team, version=__version__, published_at=time.time(), home=home)
    inventory = SimpleNamespace(living=[report], work=list)
    monkeypatch.setattr(executor_side, "take_inventory", lambda *_, **__: inventory)
    found = executor_side.examine(SITE, None, {}, {"": BERLIN, "a": PARIS}.get)
    return next(each for each in found if each.name == "executor's options")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("home", "team"), [(BERLIN.id, ""), (PARIS.id, "a")])
def test_the_same_options(monkeypatch: pytest.MonkeyPatch, home: str, team: str) -> None:
    """Each executor is compared with the options of its own team."""
    assert finding(monkeypatch, home, team).status == "ok"


@pytest.mark.usefixtures("published")
def test_other_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named, because only a restart makes them count."""
    found = finding(monkeypatch, PARIS.id)
    assert found.status == "warn" and "[core] default_timezone" in found.detail
    assert "restart the scheduler" in found.advice and found.rows == ({"different": "[core] default_timezone"},)


def test_a_home_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, published: dict[str, HomeSnapshot]) -> None:
    """The doctor goes on."""
    published.clear()
    assert "It is damaged" in finding(monkeypatch, PARIS.id).detail


def test_an_older_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It publishes none."""
    assert finding(monkeypatch, "").status == "skip"
