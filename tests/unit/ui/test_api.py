"""Modal in Airflow's UI on Airflow's real API server: two users with a DAG each, a viewer, and an admin."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import create_autospec

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow.airflow_compat.versions import AIRFLOW_V_3_1_PLUS
from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples
from modalflow.cost.timeline import Timeline
from modalflow.cost.usage import Record, Reserved
from modalflow.names import VERSION_PATH, TaskTry
from modalflow.operations.inventory import Inventory, ProfileState
from modalflow.operations.profiles import pausing
from modalflow.operations.site import Site
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.profile_holds import ProfileHold
from modalflow.protocol.snapshot import InFlight, Snapshot
from modalflow.ui import bundle
from modalflow.ui.extra_link import FunctionCallLink
from modalflow.ui.sources.cached import Cached
from modalflow.ui.views.overview import HIDDEN
from tests.support import wait_until
from tests.unit.ui.server import API, ApiServer, api_server, unreachable

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow 3.0 has no place for it")

NOW = 4_000_000_000.0
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("airflow")) as server:
        calls = [
            InFlight("w1", "l", "submitted", NOW, "fc-1", "default", 1, TaskTry("losses", "once", "r1")),
            InFlight("w2", "s", "waiting", NOW, "", "gpu", 0, TaskTry("secret", "once", "r1"), "secret is held"),
            InFlight("w3", "callback", "submitted", NOW, "fc-3", "default", 1),
        ]
        executor = Snapshot("p", "host", 7, published_at=NOW, calls=calls, trouble="secret.once failed")
        profiles = [ProfileState("default", 2, 1), ProfileState("gpu", 0, 0)]
        server.show(Inventory(NOW, [executor], [], profiles))
        yield server


async def get(server: ApiServer, path: str, user: str, role: str = "USER") -> dict[str, Any]:
    async with server.client(user, role) as client:
        answer = await client.get(f"{API}/{path}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def test_without_a_login_nothing_is_shown(server: ApiServer) -> None:
    """As in Airflow's own API. The version stays for everyone, as before."""
    async with server.client() as nobody:
        for path in ("overview", "work", "spend", "task/losses/r/once/-1", "run/losses/r", "call/losses/r/once/-1/1"):
            assert (await nobody.get(f"{API}/{path}")).status_code == 401, path
        for path in ("actions/cancel", "actions/doctor"):
            assert (await nobody.post(f"{API}/{path}", json={"work_ids": ["w1"]})).status_code == 401, path
        assert (await nobody.get(VERSION_PATH)).json()["installed"]["ours"]


async def test_users_see_the_work_of_their_dags_alone(server: ApiServer) -> None:
    """No row, no count and no name of another DAG; work of no DAG is for those who see all."""
    for user, work_id, dag in (("ada", "w1", "losses"), ("eve", "w2", "secret")):
        found = await get(server, "work", user)
        assert [row[0] for row in found["rows"]] == [work_id]
        assert (found["total"], found["matched"], found["dags"], found["cancellable"]) == (1, 1, [dag], [dag])
    assert "secret" not in json.dumps(await get(server, "work", "ada"))
    assert "host/7" not in json.dumps(await get(server, "work", "ada"))
    assert "host/7" in json.dumps(await get(server, "work", "root", "ADMIN"))
    assert (await get(server, "work", "vera"))["cancellable"] == []
    assert {row[0] for row in (await get(server, "work", "root", "ADMIN"))["rows"]} == {"w1", "w2", "w3"}


async def test_the_overview_names_no_dag_that_a_user_may_not_read(server: ApiServer) -> None:
    """Neither in counts, nor in an executor's last problem, nor in losses."""
    key = server.tables.add("once", "lost", dag_id="secret")
    server.tables.log(key, "infrastructure retry", "Lost to preemption after 3 s (function call fc-9): run again.")
    server.sources.losses.expire()
    wait_until(lambda: server.sources.losses.seen().value, what="the losses are read")
    mine = await get(server, "overview", "ada")
    assert "secret" not in json.dumps(mine)
    assert (mine["totals"], mine["executors"], mine["losses"]) == ({"running": 0, "submitted": 1, "waiting": 0}, [], [])
    assert [(each["name"], each["waiting"], each["containers"]) for each in mine["profiles"]] == [
        ("default", 0, 2),
        ("gpu", 0, 0),
    ]
    assert mine["viewer"] == {"manage": False, "examine": False, "executors": False}
    whole = await get(server, "overview", "root", "ADMIN")
    assert whole["executors"][0]["trouble"] == "secret.once failed"
    assert whole["losses"][0]["cause"] == "container-stopped"
    assert whole["viewer"] == {"manage": True, "examine": True, "executors": True}
    assert HIDDEN not in json.dumps(whole)


async def test_a_dag_that_a_user_may_not_read_has_no_pages(server: ApiServer) -> None:
    """The same answer as for one that does not exist."""
    key = server.tables.add("once", "w9", dag_id="secret", external_executor_id="fc-9/w9")
    async with server.client("ada") as ada, server.client("eve") as eve:
        for path in (
            f"task/secret/{key.run_id}/once/-1",
            f"run/secret/{key.run_id}",
            f"call/secret/{key.run_id}/once/-1/1",
        ):
            refused = await ada.get(f"{API}/{path}")
            unknown = await ada.get(f"{API}/{path.replace('secret', 'no-such-dag')}")
            assert (refused.status_code, unknown.status_code) == (404, 404), path
            assert refused.json()["detail"] == unknown.json()["detail"].replace("no-such-dag", "secret")
            assert (await eve.get(f"{API}/{path}")).status_code in (200, 302), path


async def test_what_is_missing_is_not_found(server: ApiServer) -> None:
    """A task instance, a run, and a try without a function call; a wrong value is named."""
    key = server.tables.add("once", "w8", external_executor_id=None)
    async with server.client("ada") as ada:
        for path in ("task/losses/nowhere/once/-1", "run/losses/nowhere", f"call/losses/{key.run_id}/once/-1/1"):
            assert (await ada.get(f"{API}/{path}")).status_code == 404, path
        wrong = await ada.get(f"{API}/work?limit=20000")
        assert wrong.status_code == 400
        assert wrong.json()["detail"].startswith("limit: ")


def ended(key: TaskInstanceKey, begun: float, cold: float = 0.0, **columns: Any) -> RecordedCall:
    record = Record(
        f"fc-{key.try_number}",
        "ta-1",
        begun + 3,
        key.dag_id,
        key.task_id,
        key.run_id,
        try_number=key.try_number,
        work_id=f"w-{key.try_number}",
        profile="default",
        outcome="failed",
        reserved=Reserved(1.0, 1024),
        starting=cold + 1.0,
        cold=cold,
        running=60.0,
        occupied=64.0,
        cpu_seconds=30.0,
    )
    return RecordedCall(record, Timeline(submitted_at=begun, spawned_at=begun + 1, **columns))


async def complete(server: ApiServer, path: str) -> dict[str, Any]:
    """Return the answer with the records: a read of them has begun with the first answer."""
    deadline = time.monotonic() + 30
    while not (found := await get(server, path, "ada"))["complete"]:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize(
    "path",
    [
        f"task/losses/r/once/{2**31}",
        "task/losses/r/once/-2",
        f"call/losses/r/once/-1/{10**20}",
        "task/losses/%00/once/-1",
        "run/losses/%00",
    ],
)
async def test_ids_that_a_database_refuses_are_bad_values(server: ApiServer, path: str) -> None:
    """Numbers above its integers, and NUL: otherwise the answer is an internal error."""
    async with server.client("ada", "USER") as ada:
        assert (await ada.get(f"{API}/{path}")).status_code == 400


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "the body: Field required"),
        ("{", "The body is no JSON: Expecting property name enclosed in double quotes"),
        ('{"work_ids": ["\\ud800"]}', "work_ids.0: Input should be a valid string"),
    ],
)
async def test_a_bad_body_is_named(server: ApiServer, body: str, problem: str) -> None:
    """Half a character is refused, as it cannot be part of an answer."""
    async with server.client("ada", "USER") as ada:
        refused = await ada.post(f"{API}/actions/cancel", content=body, headers=JSON)
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith(problem)


async def test_a_task_instance_has_its_tries(server: ApiServer) -> None:
    """The first answer comes at once, from Airflow's database; the records are in a later one."""
    key = server.tables.add("twice", "w-1", state="failed")
    call = ended(key, 1_700_000_000.0, image="im-1", cause="out-of-memory", reason="It ran out of memory.")
    server.play([call])
    path = f"task/losses/{key.run_id}/twice/-1"
    first = await get(server, path, "ada")
    assert first["tries"][0]["parts"][0]["function_call_id"] == "fc-1"
    found = await complete(server, path)
    (part,) = found["tries"][0]["parts"]
    assert (part["image"], part["cause"], part["outcome"]) == ("im-1", "out-of-memory", "failed")
    assert part["advice"].startswith("Ask for more")
    assert [point["name"] for point in part["points"]] == ["handed_over", "spawned", "claimed", "first_line", "ended"]
    assert part["used"]["cpu"] == 0.5
    assert part["dollars"] == pytest.approx(found["dollars"], abs=1e-8)
    assert found["dollars"] > 0


async def test_the_host_of_an_executor_is_for_those_who_see_the_cluster(server: ApiServer) -> None:
    """Also in the tab of a task instance."""
    key = server.tables.add("once", "w-host")
    server.play([])
    task = TaskTry(key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)
    call = InFlight("w-host", "l", "submitted", NOW, "fc-1", "default", 1, task)
    before = server.sources.live
    server.show(Inventory(NOW, [Snapshot("p", "host", 7, published_at=NOW, calls=[call])], []))
    try:
        for user, role, place in (("ada", "USER", ""), ("root", "ADMIN", "host/7")):
            found = await get(server, f"task/losses/{key.run_id}/once/-1", user, role)
            assert found["tries"][0]["parts"][0]["executor"] == place
    finally:
        server.sources.live = before


async def test_a_running_call_has_its_samples_so_far(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once for all viewers, from the file of its container; none of another call."""
    key = server.tables.add("once", "w-run")
    server.play([])
    task = TaskTry(key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)
    entry = Entry("w-run", State.RUNNING, "fc-1", "ta-1", "o", started_at=NOW, container_started_at=NOW - 5, task=task)
    asked: list[list[tuple[str, float]]] = []

    def running_samples(volume: object, containers: list[tuple[str, float]]) -> dict[tuple[str, str], Samples]:
        asked.append(containers)
        points = Samples("fc-1", "ta-1", NOW, 5.0, (0.5, 1.5), (100.0, 300.0))
        return {("fc-1", "ta-1"): points, ("fc-2", "ta-1"): Samples("fc-2", "ta-1", NOW, 1.0, (9.0,), (9.0,))}

    monkeypatch.setattr(server.sources._recorded, "running_samples", running_samples, raising=False)
    before = server.sources.live
    server.show(Inventory(NOW, [], [entry]))
    try:
        for _ in range(200):
            found = await get(server, f"task/losses/{key.run_id}/once/-1", "ada")
            (part,) = found["tries"][0]["parts"]
            if part["samples"]["at"]:
                break
            await asyncio.sleep(0.05)
    finally:
        server.sources.live = before
    assert part["samples"] == {"at": [NOW + 5, NOW + 10], "cpu": [0.5, 1.5], "memory_mib": [100, 300]}
    assert (part["used"]["cpu"], part["used"]["cpu_peak"], part["used"]["memory_mib"]) == (1.0, 1.5, 300.0)
    assert asked == [[("ta-1", NOW - 5)]]


async def test_samples_that_cannot_be_read_are_a_problem(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, the tab would say for ever that there are none yet."""
    key = server.tables.add("once", "w-unread")
    server.play([])
    task = TaskTry(key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)
    entry = Entry("w-unread", State.RUNNING, "fc-1", "ta-1", "o", started_at=NOW, container_started_at=NOW, task=task)

    def running_samples(*_: object) -> None:
        raise OSError("the Volume does not answer")

    monkeypatch.setattr(server.sources._recorded, "running_samples", running_samples, raising=False)
    monkeypatch.setattr(server.sources, "live", None)
    server.show(Inventory(NOW, [], [entry]))
    for _ in range(200):
        found = await get(server, f"task/losses/{key.run_id}/once/-1", "ada")
        if found["freshness"]["problem"] and found["complete"]:
            break
        await asyncio.sleep(0.05)
    assert "the Volume does not answer" in found["freshness"]["problem"]
    assert found["freshness"]["read_at"] > 0


async def test_ended_work_in_the_ledger_cannot_be_cancelled(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry can remain after the record of the end: the button would cancel nothing."""
    key = server.tables.add("once", "w-1", state="failed")
    task = TaskTry(key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)
    entry = Entry("w-1", State.RUNNING, "fc-1", "ta-1", "o", started_at=NOW, task=task)
    monkeypatch.setattr(server.sources, "live", None)
    server.show(Inventory(NOW, [], [entry]))
    path = f"task/losses/{key.run_id}/once/-1"
    server.play([])
    assert (await get(server, path, "ada"))["cancellable"]
    server.play([ended(key, 1_700_000_000.0)])
    server.sources._calls._known.clear()
    assert not (await complete(server, path))["cancellable"]


async def test_the_host_of_who_pauses_is_for_those_who_see_the_cluster(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line notes its user with the host."""
    hold = ProfileHold("gpu", "ann@host", NOW)
    monkeypatch.setattr(server.sources, "live", None)
    server.show(Inventory(NOW, [], [], [ProfileState("gpu", hold=hold)]))
    for user, role, by in (("ada", "USER", "ann"), ("root", "ADMIN", "ann@host")):
        (profile,) = (await get(server, "overview", user, role))["profiles"]
        assert profile["state_by"] == by


async def test_nor_does_the_answer_to_a_pause_have_that_host(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that a user of the command line has paused stays theirs, and the answer says whose."""
    hold = ProfileHold("gpu", "ann@host", NOW)
    monkeypatch.setattr(pausing, "pause", lambda *_, **__: pausing.Change(hold, hold))
    monkeypatch.setattr(server.sources, "_open", lambda: create_autospec(Site, instance=True))
    for user, role, by in (("ada", "OP", "ann"), ("root", "ADMIN", "ann@host")):
        async with server.client(user, role) as client:
            answer = await client.post(f"{API}/actions/profile/gpu/pause", json={})
            assert (answer.status_code, answer.json()["state_by"], answer.json()["changed"]) == (200, by, False)


async def test_the_line_begins_and_ends_in_airflow(server: ApiServer) -> None:
    """Its database has when the try was scheduled and queued, and when it noted the executor's report."""
    begun = 1_700_000_000.0
    before = {"scheduled": 9, "queued": 2}
    moments: dict[str, Any] = {f"{name}_dttm": datetime.fromtimestamp(begun - n, UTC) for name, n in before.items()}
    key = server.tables.add("once", "w-1", state="failed", **moments)
    server.tables.log(key, "infrastructure retry", "Lost to preemption after 3 s (function call fc-9): run again.")
    server.play([ended(key, begun)])
    found = await complete(server, f"task/losses/{key.run_id}/once/-1")
    (part,) = found["tries"][0]["parts"]
    points = {point["name"]: point["at"] - begun for point in part["points"]}
    assert list(points) == [
        *("scheduled", "queued", "handed_over", "spawned", "claimed", "first_line", "ended", "reported")
    ]
    assert (points["scheduled"], points["queued"], points["ended"]) == (-9, -2, 64)
    assert abs(begun + points["reported"] - time.time()) < 3600, "the log's time, which is now"


async def test_a_run_has_its_containers(server: ApiServer) -> None:
    """With the cost of each task."""
    key, begun = server.tables.add("once", "w-1"), 1_700_000_000.0
    server.play([ended(key, begun, is_cold_start=True, cold=2.0)])
    path = f"run/losses/{key.run_id}"
    found = await complete(server, path)
    (container,) = found["containers"]
    [bar] = container["bars"]
    assert (container["container_id"], bar["cold"], found["cold_starts"]) == ("ta-1", True, 1)
    # Two seconds of its start, one until the process ran, a minute of the process.
    assert [bar[name] - begun for name in ("begins", "ready", "ends")] == [1, 4, 64]
    assert [(each["task_id"], each["calls"]) for each in found["costs"]] == [("once", 1)]


async def test_cancelling_needs_the_permission_to_edit_the_task(server: ApiServer) -> None:
    """Refused for a viewer; what a user may not read does not exist for that user."""
    async with server.client("vera") as viewer:
        refused = await viewer.post(f"{API}/actions/cancel", json={"work_ids": ["w1"]})
        assert refused.status_code == 403
        assert "permission to edit the task instances" in refused.json()["detail"]
        assert (await viewer.post(f"{API}/actions/doctor", json={})).status_code == 403
    async with server.client("ada") as ada:
        # Modal cannot be reached here: so it was permitted.
        unreachable = await ada.post(f"{API}/actions/cancel", json={"work_ids": ["w1"]})
        assert unreachable.status_code == 503
        assert "does not answer" in unreachable.json()["detail"]


async def test_the_permission_is_checked_before_the_state_of_work(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that has just started answers a viewer as any other: 403, and only an editor is to try again."""
    monkeypatch.setattr(server.sources, "live", Cached("live", unreachable, 3600.0))
    for user, status in (("vera", 403), ("ada", 409)):
        async with server.client(user) as client:
            answer = await client.post(f"{API}/actions/cancel", json={"work_ids": ["w1"]})
            assert answer.status_code == status, user


async def test_work_is_hidden_without_access_to_task_instances(server: ApiServer) -> None:
    """Airflow's own lists of task instances are closed to such a user, also for DAGs that the user may read."""
    found = await get(server, "work", "dan")
    assert (found["rows"], found["total"], found["dags"]) == ([], 0, [])
    assert await get(server, "work", "ada") != found
    async with server.client("dan") as dan:
        assert (await dan.get(f"{API}/run/losses/r1")).status_code == 404
        answer = await dan.post(f"{API}/actions/cancel", json={"work_ids": ["w1"]})
        assert answer.status_code == 403


async def test_a_page_behind_a_proxy_can_act(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HTTPS, a browser names the page's origin only, and a proxy may ask Airflow under another host."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example:8080/team")
    body = json.dumps({"work_ids": ["w1"]})
    async with server.client("ada") as ada:
        for origin, status in (("http://airflow.example:8080", 503), ("http://airflow.example", 403), ("null", 403)):
            answer = await ada.post(f"{API}/actions/cancel", content=body, headers=JSON | {"origin": origin})
            assert answer.status_code == status, origin


async def test_another_site_cannot_act(server: ApiServer) -> None:
    """The browser would send Airflow's cookie with its request."""
    body = json.dumps({"work_ids": ["w1"]})
    async with server.client("ada") as ada:
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"origin": "http://elsewhere"},
            {"origin": "http://[elsewhere"},
        ):
            refused = await ada.post(f"{API}/actions/cancel", content=body, headers=JSON | headers)
            assert refused.status_code == 403, headers
        form = await ada.post(f"{API}/actions/cancel", content=body, headers={"content-type": "text/plain"})
        assert form.status_code == 415
        own = {"sec-fetch-site": "same-origin", "origin": "http://airflow"}
        assert (await ada.post(f"{API}/actions/cancel", content=body, headers=JSON | own)).status_code == 503


async def test_without_modal_answers_name_the_problem(server: ApiServer) -> None:
    """At once; the state of work is that of the last read."""
    server.sources.usage.seen()
    wait_until(lambda: server.sources.usage.seen().problem, what="the read fails")
    found = await get(server, "spend", "ada")
    assert "does not answer" in found["freshness"]["problem"]
    assert (found["series"], found["complete"]) == ([], False)


async def test_large_answers_are_compressed_once(server: ApiServer) -> None:
    """Airflow's own middleware leaves them as they are."""
    async with server.client("root", "ADMIN") as root:
        async with root.stream("GET", f"{API}/overview", headers={"accept-encoding": "gzip"}) as answer:
            raw = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert json.loads(gzip.decompress(raw))["app"] == "modalflow"


async def test_airflow_lists_the_views_and_the_link(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its UI asks for them; the files are served to everyone, as Airflow's own are."""
    async with server.client("root", "ADMIN") as root:
        plugins = (await root.get("/api/v2/plugins")).json()["plugins"]
    own = next(each for each in plugins if each["name"] == "modalflow")
    assert {app["destination"]: app["url_route"] for app in own["react_apps"]} == bundle.PLACES
    assert {app["name"] for app in own["react_apps"]} == {"Modal"}
    assert own["global_operator_extra_links"] == ["<modalflow.ui.extra_link.FunctionCallLink object>"]
    async with server.client() as nobody:
        address = own["react_apps"][0]["bundle_url"]
        script = await nobody.get(address)
        assert script.headers["content-type"].startswith("text/javascript")
        assert "immutable" in script.headers["cache-control"]
        other = await nobody.get(address.partition("?")[0])
        assert other.headers["cache-control"] == "no-cache"
        again = await nobody.get(address, headers={"if-none-match": script.headers["etag"]})
        assert again.status_code == 304
        assert (await nobody.get("/modalflow/ui/static/../app.py")).status_code == 404


async def test_icons_are_addresses(server: ApiServer) -> None:
    """A short one each in `airflow plugins`, and an image for everyone, as Airflow's own are."""
    async with server.client() as nobody:
        for app in bundle.react_apps("http://airflow/prefix"):
            for address in (app["icon"], app["icon_dark_mode"]):
                assert address.startswith("/prefix/modalflow/icon-") and len(address) < 60
                icon = await nobody.get(address.removeprefix("/prefix"))
                assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
                assert icon.text.startswith("<svg ")
        assert (await nobody.get("/modalflow/icon-blue.svg")).status_code == 404


async def test_each_try_has_a_link(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own extra link, without a request to Modal; none for a task of another executor."""
    monkeypatch.setattr("modalflow.control_plane.is_emulated", lambda: False)
    key = server.tables.add("once", "w1", external_executor_id="fc-7/w1")
    other = server.tables.add("once", "w1", external_executor_id="0a1b-celery")
    async with server.client("ada") as ada:
        path = "/api/v2/dags/losses/dagRuns/{}/taskInstances/once/links"
        links = [(await ada.get(path.format(each.run_id))).json()["extra_links"] for each in (key, other)]
        assert [each[FunctionCallLink.name] for each in links] == ["https://modal.com/id/fc-7", None]
        redirect = await ada.get(f"{API}/call/losses/{key.run_id}/once/-1/1")
        assert (redirect.status_code, redirect.headers["location"]) == (302, "https://modal.com/id/fc-7")
        monkeypatch.setattr("modalflow.control_plane.is_emulated", lambda: True)
        local = (await ada.get(path.format(key.run_id))).json()["extra_links"][FunctionCallLink.name]
        assert local == f"/dags/losses/runs/{key.run_id}/tasks/once/plugin/modal-task?try_number=1"


async def test_a_login_by_cookie_is_one(server: ApiServer) -> None:
    """The browser has no other."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role="USER"))
    async with server.client() as browser:
        answer = await browser.get(f"{API}/work", headers={"cookie": f"_token={token}"})
        assert [row[0] for row in answer.json()["rows"]] == ["w1"]
