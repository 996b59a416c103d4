"""Modal in Airflow's UI with teams: a user of one team sees nothing of another team, by Airflow's own auth manager."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from modalflow.config.settings import Settings
from modalflow.cost.usage import Record, Reserved
from modalflow.names import TaskTry
from modalflow.operations.inventory import Inventory, ProfileState
from modalflow.protocol.profile_holds import ProfileHold, ProfileHolds
from modalflow.protocol.relay_report import RelayReport
from modalflow.protocol.snapshot import InFlight, Snapshot
from modalflow.ui.sources.sources import Spending
from modalflow.ui.sources.usage_sums import UsageSums
from tests.airflows import needs_airflow
from tests.unit.executor.airflow_tables import AirflowTables
from tests.unit.ui.server import API, ApiServer, api_server

pytestmark = needs_airflow("3.2")

NOW = 4_000_000_000.0
ENV = {
    "AIRFLOW__CORE__MULTI_TEAM": "True",
    "AIRFLOW__CORE__AUTH_MANAGER": ("airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"),
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "root:admin,ruby:op:red,bert:op:blue,vera:viewer:red,both:op:red|blue",
}
#: The DAG of each team; that of none is ``losses``.
DAGS = {"red": "of_red", "blue": "of_blue"}
#: What must not reach a user of team red: names of team blue, its DAG, its profile, and its texts.
OF_BLUE = ("blue", "bert")
HOLD = ProfileHold("blue-gpu", "bert", NOW - 60, "blue drivers")
BUDGETS = [
    {"team": "*"},
    {"team": "blue"},
    {"dag": "*"},
    {"profile": "blue-gpu"},
    {},
]


def add_teams(tables: AirflowTables) -> None:
    """Write what the DAG processor and ``airflow teams sync`` write."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.team import Team
    from airflow.utils.session import create_session
    from sqlalchemy import select

    for team, dag_id in DAGS.items():
        tables.add_dag(dag_id)
        with create_session() as session:
            bundle = DagBundleModel(name=f"bundle-{team}")
            bundle.teams.append(Team(name=team))
            session.add(bundle)
            session.flush()
            dag = session.scalar(select(DagModel).where(DagModel.dag_id == dag_id))
            assert dag is not None
            dag.bundle_name = f"bundle-{team}"


def call(work_id: str, dag_id: str, profile: str) -> InFlight:
    task = TaskTry(dag_id, "once", "r1")
    return InFlight(work_id, task.label, "submitted", NOW, f"fc-{work_id}", profile, 1, task)


def spending() -> Spending:
    """What each team has spent, and budgets of every kind."""
    sums, now = UsageSums(ZoneInfo("UTC")), time.time()
    for team, dag_id in DAGS.items():
        record = Record(
            *(f"fc-{team}", f"ta-{team}", now, dag_id, "once", "r0"),
            try_number=1,
            profile=f"{team}-gpu" if team == "blue" else "default",
            team=team,
            outcome="success",
            reserved=Reserved(1.0, 1024),
            running=100.0,
            occupied=100.0,
        )
        sums.add([record])
    budgets = json.dumps([{"per": "day", "dollars": 5, "action": "hold", **each} for each in BUDGETS])
    variables = {"budgets": budgets}

    class Source:
        def get(self, _: str, key: str, *, fallback: str | None = None) -> str | None:
            return variables.get(key, fallback)

        def getsection(self, _: str) -> dict[str, Any]:
            return dict(variables)

    return Spending(Settings.read(Source()), sums)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("airflow"), env=ENV, before_start=add_teams) as server:
        executors = [
            Snapshot("p-red", "host", 1, team="red", published_at=NOW, calls=[call("w-red", "of_red", "default")]),
            Snapshot("p-blue", "host", 2, team="blue", published_at=NOW, calls=[call("w-blue", "of_blue", "blue-gpu")]),
            # A task of a team's DAG can name an executor of no team.
            Snapshot(
                "p-all",
                "host",
                3,
                published_at=NOW,
                held=1,
                calls=[call("w-none", "losses", "default"), call("w-blue-2", "of_blue", "blue-gpu")],
                trouble="of_blue.once failed",
            ),
        ]
        profiles = [ProfileState("default", 7, 3), ProfileState("blue-gpu", 2, 1, hold=HOLD)]
        relays = [RelayReport("host/9", published_at=NOW)]
        server.show(Inventory(NOW, executors, [], profiles, None, relays, ProfileHolds({"blue-gpu": HOLD})))
        server.sources.spending = spending()
        key = server.tables.add("once", "lost", dag_id="of_blue")
        server.tables.log(key, "infrastructure retry", "Lost to preemption after 3 s (function call fc-9): run again.")
        yield server


async def get(server: ApiServer, path: str, user: str, role: str, *teams: str) -> dict[str, Any]:
    async with server.client(user, role, teams=list(teams)) as client:
        answer = await client.get(f"{API}/{path}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.mark.parametrize("role", ["VIEWER", "OP"])
async def test_no_answer_names_another_team(server: ApiServer, role: str) -> None:
    """Neither its DAGs, executors, profiles, budgets and spending, nor the words of its users."""
    for path in ("work", "overview", "spend?by=dag", "spend?by=profile"):
        text = json.dumps(await get(server, path, "ruby", role, "red"))
        assert not [name for name in OF_BLUE if name in text], (path, text)
        whole = json.dumps(await get(server, path, "root", "ADMIN"))
        assert "blue" in whole, path


async def test_a_team_sees_its_own_work_and_that_of_no_team(server: ApiServer) -> None:
    """In rows, in the figures of executors, and in sums."""
    work = await get(server, "work", "ruby", "OP", "red")
    assert {row[0] for row in work["rows"]} == {"w-red", "w-none"}
    assert work["cancellable"] == ["losses", "of_red"]
    found = await get(server, "overview", "ruby", "OP", "red")
    assert {each["id"]: (each["in_flight"], each["submitted"], each["held"]) for each in found["executors"]} == {
        "p-red": (1, 1, 0),
        "p-all": (1, 1, 0),
    }
    assert [(each["name"], each["containers"], each["backlog"]) for each in found["profiles"]] == [
        ("default", None, None)
    ]
    assert {(each["scope"], each["subject"]) for each in found["budgets"]} == {("team", "red"), ("dag", "of_red")}
    assert found["relays"] == []
    assert found["totals"]["submitted"] == 2
    spent = await get(server, "spend?by=dag", "ruby", "OP", "red")
    assert [each["name"] for each in spent["series"]] == ["of_red"]
    assert spent["calls"] == 1


async def test_who_belongs_to_all_teams_sees_everything(server: ApiServer) -> None:
    """An admin, and a member of every team."""
    for user, role, teams in (("root", "ADMIN", ()), ("both", "OP", ("red", "blue"))):
        found = await get(server, "overview", user, role, *teams)
        assert {each["id"] for each in found["executors"]} == {"p-red", "p-blue", "p-all"}
        assert {each["name"]: each["containers"] for each in found["profiles"]} == {"default": 7, "blue-gpu": 2}
        assert {each["scope"] for each in found["budgets"]} == {"team", "dag", "profile", "all"}
        assert found["viewer"]["manage"]
        assert len((await get(server, "work", user, role, *teams))["rows"]) == 4


async def test_a_member_of_one_team_acts_on_its_work_alone(server: ApiServer) -> None:
    """Profiles and the doctor are of all teams; the work of another one does not exist."""
    found = await get(server, "overview", "ruby", "OP", "red")
    assert found["viewer"] == {"manage": False, "examine": False, "executors": True}
    async with server.client("ruby", "OP", teams=["red"]) as ruby:
        assert (await ruby.post(f"{API}/actions/profile/default/pause", json={})).status_code == 403
        assert (await ruby.post(f"{API}/actions/doctor", json={})).status_code == 403
        # Modal cannot be reached here, so it was permitted.
        assert (await ruby.post(f"{API}/actions/cancel", json={"work_ids": ["w-red"]})).status_code == 503
        key = server.tables.add("once", "w-9", dag_id="of_blue")
        for path in (f"task/of_blue/{key.run_id}/once/-1", f"run/of_blue/{key.run_id}"):
            assert (await ruby.get(f"{API}/{path}")).status_code == 404
    async with server.client("vera", "VIEWER", teams=["red"]) as vera:
        assert (await vera.post(f"{API}/actions/cancel", json={"work_ids": ["w-red"]})).status_code == 403


async def test_a_team_without_dags_does_not_open_the_work_of_deleted_ones(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may read every DAG that there is, but is not in every team, sees no work of no DAG."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    monkeypatch.setattr(
        SimpleAuthManager, "get_authorized_dag_ids", lambda *_, **__: {"losses", "secret", *DAGS.values()}
    )
    found = await get(server, "overview", "ruby", "OP", "red")
    (without_team,) = [each for each in found["executors"] if each["id"] == "p-all"]
    assert "of_blue" not in without_team["trouble"] and without_team["trouble"]
