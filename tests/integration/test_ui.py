"""Modal in Airflow's UI, from Airflow's API server to a control plane: what it reads there, and what it does."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import modal
import pytest
from httpx import AsyncClient

from modalflow import control_plane
from modalflow.airflow_compat.versions import AIRFLOW_V_3_1_PLUS
from modalflow.config.settings import Settings
from modalflow.config.source import Variables
from modalflow.cost.usage import Record, Reserved
from modalflow.emulator.local import LocalModal
from modalflow.names import USAGE_FOLDER, Names, TaskTry
from modalflow.operations.site import Site
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.profile_holds import HOLDS
from modalflow.protocol.snapshot import InFlight, Snapshot
from modalflow.ui.sources.sources import Sources
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.deploy.profile import Profile
from modalflow.worker.deploy.worker import Worker
from tests.unit.ui.server import API, ApiServer, api_server

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow 3.0 has no place for it")

NAMES = Names("shown")
RUNNING, WAITING = TaskTry("losses", "once", "r1"), TaskTry("losses", "twice", "r1")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A deployed worker, an executor's report, one running and one waiting task, and the record of one that ended."""
    with LocalModal(as_default=False) as local, pytest.MonkeyPatch.context() as environment:
        for name, value in local.env.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        deploy(NAMES, bundles={}, worker=Worker(profiles=[Profile("default"), Profile("gpu", max_containers=1)]))
        variables = {
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
            "AIRFLOW__MODAL_EXECUTOR__BUDGETS": '[{"dag": "losses", "per": "month", "dollars": 5, "action": "hold"}]',
        }
        site = Site(Settings.read(Variables(variables)), control_plane.connect())
        _report(site)
        yield site


def _report(site: Site) -> None:
    now = time.time()
    calls = [
        InFlight("w-running", RUNNING.label, "submitted", now - 60, "fc-1", "default", 1, RUNNING),
        InFlight("w-waiting", WAITING.label, "waiting", now - 30, "", "gpu", 0, WAITING, "the budget is used up"),
    ]
    entry = Entry("w-running", State.RUNNING, "fc-1", "ta-1", "o", RUNNING.label, "p", now - 50, task=RUNNING)
    ended = Record(
        *("fc-0", "ta-0", now - 300, "losses", "once", "r0"),
        try_number=1,
        profile="default",
        outcome="success",
        reserved=Reserved(1.0, 1024),
        running=100.0,
        occupied=100.0,
    )
    executors: Any = modal.Dict.from_name(NAMES.executors, create_if_missing=True, **site.scope)
    ledger: Any = modal.Dict.from_name(NAMES.ledger, create_if_missing=True, **site.scope)
    logs: Any = modal.Volume.from_name(NAMES.logs, create_if_missing=True, **site.scope)
    executors.put("p", Snapshot("p", "host", 7, published_at=now + 3600, calls=calls).to_json())
    ledger.put("w-running", entry.to_json())
    day = time.strftime("%Y-%m-%d", time.gmtime(now - 200))
    with logs.batch_upload() as batch:
        batch.put_file(io.BytesIO(ended.to_line().encode()), f"/{USAGE_FOLDER}/{day}/ta-0.jsonl")


@pytest.fixture(scope="module")
def opened() -> list[float]:
    """When the API server began to read from Modal."""
    return []


@pytest.fixture(scope="module")
def server(site: Site, opened: list[float], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    def open_site() -> Site:
        opened.append(time.time())
        return site

    with api_server(tmp_path_factory.mktemp("airflow"), Sources(open_site)) as server:
        yield server


@pytest.fixture
async def root(server: ApiServer) -> AsyncIterator[AsyncClient]:
    async with server.client("root", "ADMIN") as client:
        yield client


async def until(client: AsyncClient, path: str, ready: Any) -> dict[str, Any]:
    """Ask as a view does, until the answer is as wanted."""
    deadline = time.monotonic() + 60
    while True:
        answer = (await client.get(f"{API}/{path}")).json()
        if ready(answer):
            found: dict[str, Any] = answer
            return found
        assert time.monotonic() < deadline, json.dumps(answer, indent=1)
        await asyncio.sleep(0.05)


async def test_many_open_tabs_read_once(root: AsyncClient, opened: list[float]) -> None:
    """Each answer comes at once; the state of work is read by one of them for all."""
    answers = await asyncio.gather(*(root.get(f"{API}/work") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    found = await until(root, "work", lambda answer: answer["total"] == 2)
    assert [(row[0], row[2]) for row in found["rows"]] == [("w-running", "running"), ("w-waiting", "waiting")]
    assert len(opened) == 1
    assert found["freshness"]["problem"] == ""


async def test_the_overview_has_all_there_is(root: AsyncClient) -> None:
    """Executors, profiles by Modal's figures, the deployment, and budgets with what is spent."""
    found = await until(root, "overview", lambda answer: answer["budgets"] and answer["budgets"][0]["spent"])
    (budget,) = found["budgets"]
    assert (budget["subject"], budget["action"], budget["used_up"]) == ("losses", "hold", False)
    assert budget["left"] == pytest.approx(5 - budget["spent"])
    assert [each["place"] for each in found["executors"]] == ["host/7"]
    profiles = {each["name"]: each for each in found["profiles"]}
    assert profiles.keys() == {"default", "gpu"}
    assert (profiles["gpu"]["waiting"], profiles["gpu"]["limits"]["max_containers"]) == (1, "1")
    assert profiles["gpu"]["dollars_per_hour"] > 0
    assert found["links"]["function_call"] == "", "a local control plane has no pages"
    spent = await until(root, "spend?by=profile", lambda answer: answer["complete"])
    assert [each["name"] for each in spent["series"]] == ["default"]
    assert spent["total"] == pytest.approx(budget["spent"], rel=1e-3)


async def test_a_profile_is_paused_and_resumed(root: AsyncClient, site: Site, server: ApiServer) -> None:
    """For every executor, in the name of the user; an unknown one is not found."""
    path = f"{API}/actions/profile/gpu"
    async with server.client("ada") as ada:
        assert (await ada.post(f"{path}/pause", json={})).status_code == 403
    paused = (await root.post(f"{path}/pause", json={"reason": "new drivers"})).json()
    assert (paused["state"], paused["state_by"], paused["state_reason"]) == ("paused", "root", "new drivers")
    executors: Any = modal.Dict.from_name(NAMES.executors, **site.scope)
    assert "new drivers" in await executors.get.aio(HOLDS)
    shown = await until(root, "overview", lambda answer: answer["profiles"][1]["state"] == "paused")
    assert shown["profiles"][1]["state_by"] == "root"
    assert (await root.post(f"{path}/drain", json={})).json()["state"] == "draining"
    assert (await root.post(f"{path}/resume", json={})).json()["state"] == "active"
    unknown = await root.post(f"{API}/actions/profile/nope/pause", json={})
    assert unknown.status_code == 404
    assert "deployed profiles: default, gpu" in unknown.json()["detail"]
    assert (await root.post(f"{path}/explode", json={})).status_code == 400


async def test_waiting_work_is_cancelled(site: Site, server: ApiServer) -> None:
    """By a user who may edit its DAG. The ledger keeps a later submission from running, and Airflow's log has it."""
    async with server.client("ada") as ada:
        await until(ada, "work", lambda answer: answer["total"] == 2)
        answer = await ada.post(f"{API}/actions/cancel", json={"work_ids": ["w-waiting", "unknown"]})
    assert [(each["work_id"], each["done"]) for each in answer.json()["results"]] == [
        ("w-waiting", True),
        ("unknown", True),
    ]
    ledger: Any = modal.Dict.from_name(NAMES.ledger, **site.scope)
    entry = Entry.from_json(await ledger.get.aio("w-waiting"))
    assert entry.reason is not None
    assert "cancelled by ada in Airflow's UI" in entry.reason
    assert any(line.startswith("modalflow cancel") for line in server.tables.audit_of("losses"))
