"""Versions of an app: calling an old one, going back to one, staging one, finishing calls on the one they began on."""

from collections.abc import Iterator
from typing import Any

import modal
import pytest
from modal.exception import NotFoundError
from modal.runner import deploy_app
from modal_proto import api_pb2

from tests.contract.deploying import stop_app
from tests.contract.inspecting import containers
from tests.sdk import needs_sdk, rpc
from tests.support import wait_until


class Versioned:
    """An app whose versions differ in what they answer."""

    def __init__(self, name: str, client: modal.Client) -> None:
        self.name, self.client = name, client

    def deploy(self, answer: str, *, only_here: bool = False, staged: bool = False) -> str:
        """Deploy a version that answers so; return the app's id."""
        app = modal.App(self.name)
        app.function(serialized=True, name="answer")(lambda: answer)

        def slow(seconds: float, marker: str) -> str:
            import time

            import modal

            modal.Dict.from_name(marker)["began"] = answer
            time.sleep(seconds)
            return answer

        app.function(serialized=True, name="slow")(slow)
        if only_here:
            app.function(serialized=True, name="only_here")(lambda: f"only in {answer}")

        class Model:
            suffix: str = modal.parameter(default="")

            @modal.method()
            def answer(self) -> str:
                return answer + self.suffix

        app.cls(serialized=True)(Model)
        # An old SDK knows no such option.
        staging: dict[str, Any] = {"staged": True} if staged else {}
        return deploy_app(app, client=self.client, **staging).app_id

    def ask(self, function: str = "answer", version: int | None = None) -> Any:
        return self.function(function, version).remote()

    def function(self, function: str, version: int | None = None) -> modal.Function[..., Any, Any]:
        return modal.Function.from_name(self.name, function, version=version, client=self.client)

    def model(self, version: int | None = None) -> Any:
        return modal.Cls.from_name(self.name, "Model", version=version, client=self.client)


@pytest.fixture
def app(client: modal.Client, name: str) -> Iterator[Versioned]:
    yield Versioned(name, client)
    stop_app(name, client)


def test_a_version_can_be_called_after_later_deployments(app: Versioned) -> None:
    """Functions and classes looked up with a version run that version's code, parts removed since included."""
    app.deploy("one", only_here=True)
    app.deploy("two")
    assert (app.ask(), app.ask(version=1), app.ask(version=2)) == ("two", "one", "two")
    assert app.ask("only_here", version=1) == "only in one"
    assert app.model()().answer.remote() == "two"
    assert app.model(version=1)(suffix="!").answer.remote() == "one!"
    assert app.function("answer", 1).with_options(timeout=77).remote() == "one"
    with pytest.raises(NotFoundError, match="only_here"):
        app.ask("only_here")
    with pytest.raises(NotFoundError, match="v9"):
        app.ask(version=9)


def test_a_pinned_container_outlives_a_redeployment(app: Versioned) -> None:
    """A deployment replaces the containers of the current version only."""
    app.deploy("one")
    pinned = app.function("answer", 1)
    assert pinned.remote() == "one"
    before = containers(app.client, app.name)
    app.deploy("two")
    assert pinned.remote() == "one"
    assert containers(app.client, app.name) == before


def test_rollback_and_rollover(app: Versioned) -> None:
    """Going back is a new version with the old code; a rollover is a new version with the same code."""
    app_id = app.deploy("one", only_here=True)
    app.deploy("two")
    rpc(app.client, "AppRollback", api_pb2.AppRollbackRequest(app_id=app_id, version=-1))
    assert app.ask() == "one"
    assert app.ask("only_here") == "only in one"
    rpc(app.client, "AppRollback", api_pb2.AppRollbackRequest(app_id=app_id, version=2))
    rpc(app.client, "AppRollover", api_pb2.AppRolloverRequest(app_id=app_id))
    assert app.ask() == "two"
    history = rpc(app.client, "AppDeploymentHistory", api_pb2.AppDeploymentHistoryRequest(app_id=app_id))
    deployments = [(d.version, d.rollback_version) for d in history.app_deployment_histories]
    assert deployments == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 4)]
    if "production_app_version" in history.DESCRIPTOR.fields_by_name:  # not in the oldest SDKs
        assert history.production_app_version == 5


@needs_sdk("1.5.4")
def test_a_staged_version_is_called_by_its_number_until_it_is_promoted(app: Versioned) -> None:
    """Staging changes nothing for those who name no version; promoting makes it what they get."""
    app_id = app.deploy("one")
    app.deploy("two", staged=True)
    assert (app.ask(), app.ask(version=2)) == ("one", "two")
    rpc(app.client, "AppPromote", api_pb2.AppPromoteRequest(app_id=app_id, version=2))
    assert app.ask() == "two"


def test_a_call_in_flight_finishes_on_its_version(app: Versioned, notes: modal.Dict, name: str) -> None:
    """A redeployment lets what runs run to its end; what comes later gets the new version."""
    app.deploy("one")
    call = app.function("slow").spawn(2.0, name)
    wait_until(lambda: notes.get("began"), what="the call's start", timeout=30)
    app.deploy("two")
    assert app.ask() == "two"
    assert call.get(timeout=30) == "one"
