"""Who sees what of Modal in Airflow's UI, on Airflow's real API server: two users with a DAG each, and an admin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from modalflow.names import TaskTry
from modalflow.operations.inventory import Inventory
from modalflow.protocol.snapshot import InFlight, Snapshot
from tests.unit.ui.server import API, ApiServer, api_server

NOW = 4_000_000_000.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("airflow")) as server:
        calls = [
            InFlight("w1", "l", "submitted", NOW, "fc-1", "default", 1, TaskTry("losses", "once", "r1")),
            InFlight("w2", "s", "waiting", NOW, "", "gpu", 0, TaskTry("secret", "once", "r1"), "secret is held"),
            InFlight("w3", "callback", "submitted", NOW, "fc-3", "default", 1),
        ]
        executor = Snapshot("p", "host", 7, published_at=NOW, calls=calls, trouble="secret.once failed")
        server.show(Inventory(NOW, [executor], []))
        yield server


async def test_without_a_login_nothing_is_shown(server: ApiServer) -> None:
    """As in Airflow's own API."""
    async with server.client() as nobody:
        for path in ("overview", "work", "spend", "task/losses/r/once/-1", "run/losses/r"):
            assert (await nobody.get(f"{API}/{path}")).status_code == 401, path
        answer = await nobody.post(f"{API}/actions/cancel", json={"work_ids": ["w1"]})
        assert answer.status_code == 401


async def work_of(server: ApiServer, user: str, role: str = "USER") -> dict[str, Any]:
    async with server.client(user, role) as client:
        answer = await client.get(f"{API}/work")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def test_users_see_the_work_of_their_dags_alone(server: ApiServer) -> None:
    """No row, no count and no name of another DAG; work of no DAG is for those who see all."""
    for user, work_id, dag in (("ada", "w1", "losses"), ("eve", "w2", "secret")):
        found = await work_of(server, user)
        assert [row[0] for row in found["rows"]] == [work_id]
        assert (found["total"], found["matched"], found["dags"], found["cancellable"]) == (1, 1, [dag], [dag])
    assert "secret" not in str(await work_of(server, "ada"))
    assert {row[0] for row in (await work_of(server, "root", "ADMIN"))["rows"]} == {"w1", "w2", "w3"}
