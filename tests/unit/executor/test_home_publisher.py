"""The publication of the host's configuration, with Modal's answers played."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from modal import exception

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.sealing import KeyPair, salt_of
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import RENEWED_AFTER
from modalflow.errors import HomeError
from modalflow.executor import connection, home_publisher
from modalflow.executor.connection import Connector
from modalflow.executor.home_publisher import HomePublisher
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Deployment, Kind
from tests.wired import request, wired

HOME = HostHome({"core": {"a": "1"}}, {"smtp": {"smtp_password": "hunter2"}}, {"plugins/a.py": b""}, salt=salt_of("s"))


@pytest.fixture(scope="module")
def key() -> str:
    return KeyPair.new().public


def deployment(home_key: str = "") -> Deployment:
    return Deployment("", 1, "", "", ("default",), {}, 0.0, home_key=home_key)


class PlayedApi:
    """Keeps what is published, unless a failure is played."""

    def __init__(self, failure: Exception | None = None, record: Deployment | None = None) -> None:
        self.logs = SimpleNamespace(name="app-logs")
        self.failure, self.record = failure, record
        self.published: list[HomeSnapshot] = []
        self.pruned = 0
        self.wires: list[dict[str, Any]] = []

    async def deployment(self) -> Deployment | None:
        return self.record

    async def publish_home(self, snapshot: HomeSnapshot, contents: Mapping[str, bytes], team: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.published.append(snapshot)

    async def prune_homes(self) -> None:
        self.pruned += 1

    async def spawn(self, profile: str, resources: Resources, wire: dict[str, Any]) -> str:
        self.wires.append(wire)
        return f"fc-{len(self.wires)}"


async def published(publisher: HomePublisher, api: PlayedApi, record: Deployment) -> str:
    played: Any = api
    await publisher.keep_up(played, record)
    return publisher.id


async def test_it_is_published_once_for_a_deployment(key: str) -> None:
    """What is old is removed once, later than the publication, for which tasks may wait."""
    publisher, api = HomePublisher(HOME, ""), PlayedApi()
    ids = {await published(publisher, api, deployment(key)) for _ in range(3)}
    assert ids == {HOME.snapshot(key).id} and len(api.published) == 1 and api.pruned == 1


async def test_a_deployment_with_another_key_gets_what_it_can_decrypt(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker without a key gets the rest, and the log names what it lacks and how to fix it."""
    publisher, api = HomePublisher(HOME, ""), PlayedApi()
    with caplog.at_level(logging.WARNING):
        without = await published(publisher, api, deployment())
    assert "[smtp] smtp_password" in caplog.text and "modalflow deploy" in caplog.text and "hunter2" not in caplog.text
    assert await published(publisher, api, deployment(key)) != without
    assert [snapshot.sealed is not None for snapshot in api.published] == [False, True]


async def test_a_snapshot_in_use_never_gets_old(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that runs for weeks writes its own again, under the same id, before anyone may remove it."""
    now = 1000.0
    monkeypatch.setattr(home_publisher, "time", SimpleNamespace(time=lambda: now))
    publisher, api = HomePublisher(HOME, ""), PlayedApi()
    first = await published(publisher, api, deployment(key))
    now += RENEWED_AFTER
    assert await published(publisher, api, deployment(key)) == first and len(api.published) == 2


async def test_work_goes_on_if_it_cannot_be_written_again(key: str, caplog: pytest.LogCaptureFixture) -> None:
    """The snapshot that is named is still there."""
    publisher, api = HomePublisher(HOME, ""), PlayedApi()
    first = await published(publisher, api, deployment(key))
    api.failure = exception.ConnectionError("no network")
    assert await published(publisher, api, deployment(KeyPair.new().public)) == first
    assert "no network" in caplog.text


@pytest.mark.parametrize(
    "failure", [exception.ResourceExhaustedError("Volume is full"), TimeoutError("slow"), OSError(28, "full")]
)
async def test_workloads_wait_until_it_is_published(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """No task runs with the wrong settings: nothing is submitted, the reason is the obstacle, and it is tried again."""
    monkeypatch.setattr(connection, "RECONNECT", 0.01)
    api = PlayedApi(failure, deployment())
    wiring = wired(api, home=HOME)
    wiring.connection.api = None
    connector = Connector(
        wiring.connection,
        lambda observer: cast(Any, api),
        wiring.homes,
        wiring.metrics,
        wiring.submitter,
        wiring.tasks,
        wiring.relay_key,
    )
    ready: Future[None] = Future()
    wiring.intake.accept([request("a"), request("b", Kind.COMMAND)])
    connecting = asyncio.create_task(connector.connect_first(ready))
    await asyncio.sleep(0.05)
    assert not connecting.done() and isinstance(ready.exception(), HomeError)
    assert "app-logs" in wiring.connection.obstacle
    assert [call.phase for call in wiring.calls] == [Phase.UNPLACED, Phase.UNPLACED]
    api.failure = None
    assert await connecting
    wiring.intake.place_all()
    wiring.submitter.start()
    while len(api.wires) < 2:
        await asyncio.sleep(0.01)
    assert [wire["home"] for wire in api.wires] == [HOME.snapshot("").id, ""]


async def test_work_of_another_scheduler_gets_the_configuration_of_this_one(key: str) -> None:
    """Its settings count for what it submits again, and the dead scheduler's for what that had submitted."""
    api: Any = PlayedApi()
    wiring = wired(api, home=HOME)
    await wiring.homes.publish(api, deployment(key))
    draft = request("a")
    earlier = dataclasses.replace(draft, draft=dataclasses.replace(draft.draft, home="of another scheduler"))
    call = Call.accepted(earlier, 0.0)
    wiring.calls.add(call)
    wiring.intake.place_all()
    assert call.submission is not None and call.submission.home == HOME.snapshot(key).id


def carried(publisher: HomePublisher, **env: str) -> dict[str, str]:
    draft = request("a").draft
    return publisher.without_stored(dataclasses.replace(draft, env=env, own_env=("AIRFLOW__EMAIL__FROM_EMAIL",)))


async def test_a_workload_does_not_carry_what_its_home_has(key: str) -> None:
    """An older worker still gets it; a value that the user gives workloads or a task stays."""
    settings = {
        "core": {"sensitive_var_conn_names": "door_pin", "default_timezone": "Europe/Berlin"},
        "metrics": {"statsd_host": "statsd"},
        "email": {"from_email": "acme"},
        "workers": {"execution_api_timeout": "7"},
    }
    stored = {
        "AIRFLOW__SMTP__SMTP_PASSWORD": "hunter2",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin",
        # An image's own variable must not weaken the host's masking.
        "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "door_pin",
        "AIRFLOW__METRICS__STATSD_HOST": "statsd",
        "AIRFLOW__EMAIL__FROM_EMAIL": "acme",
        # A worker has another default for it, above the host's file.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "7",
    }
    home = dataclasses.replace(HOME, settings=settings)
    publisher = HomePublisher(home, "", given=["AIRFLOW__METRICS__STATSD_HOST"])
    await published(publisher, PlayedApi(), deployment())
    assert carried(publisher, **stored) == stored
    await published(publisher, PlayedApi(), deployment(key))
    assert carried(publisher, **stored, TZ="UTC") == {**dict(list(stored.items())[2:]), "TZ": "UTC"}
    others = dict.fromkeys(stored, "another")
    assert carried(publisher, **others) == others


async def test_any_error_of_an_upload_is_one_of_the_publication(key: str) -> None:
    """The SDK passes on errors of its HTTP client: none may end the engine's thread."""
    publisher, api = HomePublisher(HOME, ""), PlayedApi(aiohttp.ClientPayloadError("cut off"))
    played: Any = api
    with pytest.raises(HomeError, match=r"app-logs.*cut off"):
        await publisher.publish(played, deployment(key))
    assert await published(publisher, api, deployment(key)) == ""
