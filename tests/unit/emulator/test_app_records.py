"""Apps, functions and classes after the end of a control plane."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpclib import GRPCError
from modal_proto import api_pb2

from modalflow.emulator.apps.app_lifecycle import CLIENT_LOST_AFTER, STOPPED_KEPT, AppLifecycle
from modalflow.emulator.apps.app_service import AppService
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.rollbacks import Rollbacks
from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.calls import Calls
from modalflow.emulator.containers.capacity import Capacity
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.images.image_store import ImageStore
from modalflow.emulator.logs.logs import Logs
from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.state_dir import StateDir
from tests.unit.emulator.parts import Runner

CALLER = Caller(container_id=None, client_version="1", idempotency_key=None)


class Deployments:
    """The services that know of deployments, on a folder that outlives them."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        environments, containers = Environments(self.journal), Containers()
        self.apps = Apps(environments, self.journal)
        self.functions = Functions(self.apps, self.journal)
        logs = Logs(self.apps, ImageStore(StateDir()), containers, self.journal)
        capacity = Capacity(1000.0, 1_000_000, 10)
        pools = Pools(containers, Placement(capacity, logs), Runner(), scaledown_window=60.0)
        calls = Calls(self.functions, pools, CallRecords(self.journal))
        self.lifecycle = AppLifecycle(environments, self.apps, self.functions, calls, pools, logs)
        self.service = AppService(environments, self.apps, self.lifecycle, containers)

    async def create(self, state: int = api_pb2.APP_STATE_INITIALIZING) -> str:
        request = api_pb2.AppCreateRequest(description="d", app_state=state, tags={"team": "a"})  # type: ignore[arg-type]
        return (await self.service.AppCreate(request, CALLER)).app_id

    async def function(self, app_id: str, name: str, existing: str = "", **definition: object) -> str:
        made = api_pb2.Function(function_name=name, **definition)  # type: ignore[arg-type]
        request = api_pb2.FunctionCreateRequest(app_id=app_id, function=made, existing_function_id=existing)
        return (await self.functions.FunctionCreate(request, CALLER)).function_id

    async def publish(self, app_id: str, functions: dict[str, str], classes: dict[str, str] | None = None) -> None:
        request = api_pb2.AppPublishRequest(
            app_id=app_id,
            name="app",
            deployment_tag="v",
            app_state=api_pb2.APP_STATE_DEPLOYED,
            function_ids=functions,
            class_ids=classes or {},
        )
        await self.service.AppPublish(request, CALLER)

    async def bind(self, function_id: str, params: bytes = b"", **options: object) -> str:
        request = api_pb2.FunctionBindParamsRequest(function_id=function_id, serialized_params=params)
        if options:
            request.function_options.CopyFrom(api_pb2.FunctionOptions(**options))  # type: ignore[arg-type]
        return (await self.functions.FunctionBindParams(request, CALLER)).bound_function_id

    async def restart(self) -> Deployments:
        """Another instance, after all that was to be acknowledged is on disk and nothing else happened."""
        await self.journal.settled()
        folder = self.journal._path
        assert folder is not None
        self.journal.close()
        return Deployments(folder.parent)


@pytest.fixture
def first(tmp_path: Path) -> Deployments:
    return Deployments(tmp_path)


async def test_an_app_is_as_it_was(first: Deployments) -> None:
    """Its state, version, tags, history, layout and ids are those that were last acknowledged."""
    app_id = await first.create()
    function_id = await first.function(app_id, "f")
    for _ in range(2):
        await first.publish(app_id, {"f": function_id}, {"C": "cs-1"})
    await first.service.AppSetTags(api_pb2.AppSetTagsRequest(app_id=app_id, tags={"team": "b"}), CALLER)
    before = first.apps.get(app_id)
    after = (await first.restart()).apps.deployed("app", "main")
    assert after.app_id == app_id and after.tags == {"team": "b"}
    assert after.lifecycle == before.lifecycle
    assert after.function_ids == {"f": function_id} and after.class_ids == {"C": "cs-1"}
    assert after.history == before.history and len(after.versions) == 2


async def test_functions_are_as_they_were(first: Deployments) -> None:
    """Ids, published and staged definitions, revisions, what update_autoscaler said, and what was removed."""
    app_id = await first.create()
    kept, removed = await first.function(app_id, "kept", timeout_secs=7), await first.function(app_id, "removed")
    await first.publish(app_id, {"kept": kept, "removed": removed})
    await first.publish(app_id, {"kept": kept})
    function = first.functions.get(kept)
    function.autoscaler.min_containers = 2
    first.functions.save(function)
    await first.function(app_id, "kept", kept, timeout_secs=9)

    second = await first.restart()
    after = second.functions.get(kept)
    assert (after.tag, after.revision, after.spec.timeout_secs) == ("kept", 2, 7)
    assert after.staged is not None and after.staged.timeout_secs == 9
    assert after.scaling(60.0).min_containers == 2
    assert after.definition_id == function.definition_id
    assert second.functions.get(removed).callable_reason
    await second.publish(app_id, {"kept": kept})
    assert after.spec.timeout_secs == 9, "what was staged before the restart is published after it"


async def test_variants_are_found_again(first: Deployments) -> None:
    """The same options and parameters give the variant that they gave before, a variant of a variant as well."""
    app_id = await first.create()
    function_id = await first.function(app_id, "f", timeout_secs=7)
    await first.publish(app_id, {"f": function_id})
    optioned = await first.bind(function_id, timeout_secs=3)
    bound = await first.bind(optioned, b"parameters")
    second = await first.restart()
    assert await second.bind(function_id, timeout_secs=3) == optioned
    assert await second.bind(optioned, b"parameters") == bound
    variant = second.functions.get(bound)
    assert variant.spec.timeout_secs == 3 and variant.serialized_params == b"parameters"
    assert variant.root is second.functions.get(function_id)


async def test_versions_are_there_to_go_back_to(first: Deployments) -> None:
    """A pinned version is the same function as before, and a rollback after the restart finds the old definitions."""
    app_id = await first.create()
    function_id = await first.function(app_id, "f", timeout_secs=7)
    await first.publish(app_id, {"f": function_id})
    await first.function(app_id, "f", function_id, timeout_secs=9)
    await first.publish(app_id, {"f": function_id})
    pinned = await first.bind(function_id, pinned_app_version=1)
    second = await first.restart()
    assert await second.bind(function_id, pinned_app_version=1) == pinned
    assert second.functions.get(pinned).spec.timeout_secs == 7
    assert second.functions.get(function_id).spec.timeout_secs == 9
    await Rollbacks(second.apps, second.lifecycle).AppRollback(
        api_pb2.AppRollbackRequest(app_id=app_id, version=1), CALLER
    )
    third = await second.restart()
    assert third.functions.get(function_id).spec.timeout_secs == 7
    assert third.apps.get(app_id).version == 3


async def test_a_class_keeps_its_id(first: Deployments) -> None:
    """A class deployed again after a restart is the same class."""
    app_id = await first.create()
    made = await first.functions.ClassCreate(api_pb2.ClassCreateRequest(app_id=app_id), CALLER)
    again = api_pb2.ClassCreateRequest(app_id=app_id, existing_class_id=made.class_id)
    second = await first.restart()
    assert (await second.functions.ClassCreate(again, CALLER)).class_id == made.class_id


async def test_an_ephemeral_app_waits_for_its_client(first: Deployments) -> None:
    """After a restart its client has as long as after any silence to be heard again; then the app is stopped."""
    app_id = await first.create(api_pb2.APP_STATE_EPHEMERAL)
    second = await first.restart()
    second.lifecycle.stop_abandoned()
    await second.service.AppHeartbeat(api_pb2.AppHeartbeatRequest(app_id=app_id), CALLER)
    second.apps.get(app_id).last_heartbeat -= CLIENT_LOST_AFTER + 1
    second.lifecycle.stop_abandoned()
    assert second.apps.get(app_id).is_over


@pytest.mark.parametrize("how", ["stop", "disconnect"])
async def test_what_was_stopped_stays_stopped(first: Deployments, how: str) -> None:
    """An app that ended has ended, with the time and the one who stopped it."""
    app_id = await first.create(api_pb2.APP_STATE_EPHEMERAL)
    if how == "stop":
        await first.service.AppStop(api_pb2.AppStopRequest(app_id=app_id), CALLER)
    else:
        await first.service.AppClientDisconnect(api_pb2.AppClientDisconnectRequest(app_id=app_id), CALLER)
    lifecycle = first.apps.get(app_id).lifecycle
    assert (await first.restart()).apps.get(app_id).lifecycle == lifecycle


async def test_stopped_apps_are_forgotten_in_the_end(first: Deployments) -> None:
    """A week after its end an app and its functions are gone, from memory and from the folder; others stay."""
    stopped, running = await first.create(), await first.create()
    function_id = await first.function(stopped, "f")
    other_id = await first.function(running, "f")
    await first.publish(stopped, {"f": function_id})
    variant = await first.bind(function_id, timeout_secs=3)
    await first.service.AppStop(api_pb2.AppStopRequest(app_id=stopped), CALLER)
    first.apps.get(stopped).stopped_at -= STOPPED_KEPT + 1
    first.lifecycle.forget_stopped()
    for second in (first, await first.restart()):
        for gone in (function_id, variant):
            with pytest.raises(GRPCError):
                second.functions.get(gone)
        with pytest.raises(GRPCError):
            second.apps.get(stopped)
        assert second.functions.get(other_id).app is second.apps.get(running)
